"""One recipe, ready to run with any seed: data loaded, split made, step compiled once."""

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.build import build_optimizer
from experiments.built_stage import BuiltStage, steps_of
from experiments.code_version import code_version
from experiments.execution import UNMEASURED, Execution
from experiments.initial_weights import initial_weights
from experiments.loaded_data import load_data, split_file
from experiments.parameters import count_parameters
from experiments.recipe import Recipe
from jaxlt.devices.processes import are_several, by_first, in_agreement
from jaxlt.devices.sharding import Layout, on_host
from jaxlt.evaluation import ShotGroups, evaluate, group_accuracy, group_confusion
from jaxlt.files.json_files import write_json
from jaxlt.models.clip.vision_towers import tower_digest
from jaxlt.training import (
    Job,
    JobStage,
    ReplicaPipeline,
    Steps,
    TrainState,
    Workdir,
    stack,
)
from jaxlt.training.loop.job import unchanged

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Replica:
    """One run of an experiment.

    Attributes:
        seed: of parameters, order and augmentation; the split has its own.
        path: the run's directory.
        rho: in place of the recipe's, None for the recipe's own.
    """

    seed: int
    path: Path
    rho: float | None = None

    @property
    def name(self) -> str:
        """Seed and radius, for people."""
        return f"seed {self.seed}" + ("" if self.rho is None else f" rho {self.rho:g}")


class Experiment:
    """A recipe with its data, networks and compiled steps; its runs share all of them.

    Args:
        recipe: what to run.
        execution: how its runs are computed.
        check_images: whether all images of the split and those evaluated are decoded once.

    Attributes:
        suits_loops: see `ImageClassifier`.

    Raises:
        UsageError: the recipe does not fit its data, a number in it is out of range, or images
            cannot be decoded.
    """

    def __init__(
        self,
        recipe: Recipe,
        execution: Execution = UNMEASURED,
        *,
        check_images: bool = False,
    ):
        self.recipe, self._execution = recipe, execution
        self.groups = ShotGroups(recipe.many_above, recipe.few_below)
        layout = Layout(execution.shard_parameters)
        self.source, self.split, self._feed = in_agreement(
            lambda: load_data(recipe, execution.pipeline, layout, check_images)
        )
        if check_images:
            by_first(self._feed.check_images)
        weights = initial_weights(recipe, self.source, self._feed)
        self._stages, self._shapes = in_agreement(lambda: self._build(weights, layout))
        self.suits_loops = self._stages[0].model.suits_loops

    def _build(
        self, weights: dict[str, Any], layout: Layout
    ) -> tuple[list[BuiltStage], TrainState]:
        """Returns the stages and the shapes of a run's state; nothing is written before it."""
        stages = [
            BuiltStage(
                self.recipe,
                number,
                self.source,
                self.split,
                self._feed,
                weights,
                layout,
                skip_nonfinite=self._execution.skip_nonfinite > 0,
            )
            for number in range(len(self.recipe.stages))
        ]
        for number, stage in enumerate(self.recipe.stages):
            # Refuses what the pipeline cannot do.
            self._feed.pipeline(0, stage, number)
        # Refuses what the network has not, such as so many blocks.
        return stages, jax.eval_shape(lambda: stages[0].initial_state(0))

    @property
    def num_images(self) -> int:
        """Training images of the split."""
        return len(self.split.indices)

    @property
    def num_steps(self) -> int:
        """Steps of a run, in all stages."""
        return sum(steps_of(stage, self.num_images) for stage in self.recipe.stages)

    def check(self, replica: Replica) -> None:
        """Raises UsageError if the radius is out of range."""
        build_optimizer(self._recipe_of(replica.rho), self.split.class_counts)

    def workdir(self, replica: Replica) -> Workdir:
        """Opens a run's directory, created if missing.

        Raises:
            UsageError: it is not this recipe's; nothing in it is changed then.
        """
        described = {
            **self._recipe_of(replica.rho).described(),
            "seed": replica.seed,
            "images": _digest(self.split.indices),
        }
        workdir = Workdir(replica.path, described, code_version(), self.recipe.defaults())
        by_first(lambda: self._describe_in(replica.path))
        return workdir

    def _describe_in(self, directory: Path) -> None:
        """Writes what later programs read of a run, beside its recipe."""
        for file in (directory / "split.json", split_file(self.recipe)):
            if file is not None and not file.exists():
                self.split.write(file)
        if not (description := directory / "model.json").exists():
            write_json(description, self._model_description())

    def _model_description(self) -> dict[str, Any]:
        """Returns what it takes to predict with a finished run's checkpoint."""
        adaptation = self.recipe.adapted()
        return {
            "model": self.recipe.model,
            "adaptation": None if adaptation is None else dataclasses.asdict(adaptation),
            "pretrained": None if adaptation is None else tower_digest(self.recipe.model),
            "num_classes": self.source.num_classes,
            "classifier": self.recipe.heads[-1],
            "cosine_scale": self.recipe.cosine_scale,
            "precision": self.recipe.precision,
            "image_shape": list(self.source.image_shape),
            "mean": list(self.source.mean),
            "std": list(self.source.std),
            "class_names": list(self.source.class_names),
            "resize": self.recipe.resize,
            "class_numbers": list(self.source.class_numbers),
        }

    def describe(self, label: str, where: str) -> None:
        """Logs what is about to be trained."""
        stages = len(self._stages)
        trained, frozen = map(count_parameters, (self._shapes.params, self._shapes.frozen))
        _logger.info(
            "%s: %s, %d training images in %d classes (%d to %d a class), %s with %d%s "
            "parameters, %d steps%s, %s",
            label,
            self.recipe.dataset,
            self.num_images,
            self.source.num_classes,
            max(self.split.class_counts),
            min(self.split.class_counts),
            self.recipe.model,
            trained,
            f" and {frozen} frozen" if frozen else "",
            self.num_steps,
            f" in {stages} stages" if stages > 1 else "",
            where,
        )

    def job(self, replicas: Sequence[Replica]) -> Job:
        """Prepares training: of one run for `train`, of several for `train_together`."""
        states = [self._stages[0].initial_state(replica.seed) for replica in replicas]
        state = states[0] if len(replicas) == 1 else stack(states)
        return Job(
            initial_state=on_host(state) if self._execution.shard_parameters else state,
            stages=tuple(self._job_stage(number, replicas) for number in range(len(self._stages))),
            skip_nonfinite=self._execution.skip_nonfinite,
        )

    def _job_stage(self, number: int, replicas: Sequence[Replica]) -> JobStage:
        built = self._stages[number]
        return JobStage(
            steps=self._steps(number, replicas) if built.stage.kind == "train" else None,
            evaluate=lambda state: self._evaluate(state, built),
            template=lambda: built.initial_state(0),
            enter=built.enter if number else unchanged,
            leave=built.leave if built.changes_at_its_end else unchanged,
        )

    def _steps(self, number: int, replicas: Sequence[Replica]) -> Steps:
        built, every = self._stages[number], self._execution.measure_every
        pipelines = [self._feed.pipeline(r.seed, built.stage, number) for r in replicas]
        pipeline = pipelines[0] if len(replicas) == 1 else ReplicaPipeline(pipelines)
        # A radius given beside the recipe is the first stage's.
        radii = tuple(
            self._recipe_of(r.rho).rho if number == 0 else built.stage.rho for r in replicas
        )
        return Steps(
            built.program(radii, pipeline),
            pipeline,
            num_steps=built.stage.num_steps(self.num_images),
            eval_steps=built.stage.num_steps(self.num_images, self.recipe.eval_epochs),
            measurements=built.measurements(every) if every else None,
        )

    def _recipe_of(self, rho: float | None) -> Recipe:
        return self.recipe if rho is None else dataclasses.replace(self.recipe, rho=rho)

    def _evaluate(self, state: TrainState, built: BuiltStage) -> dict[str, Any]:
        batches: Any = self._feed.evaluated()

        def logits(images: Any) -> Any:
            found = self._logits(built, state, images)
            return np.asarray(found) if are_several() else found

        result = evaluate(
            logits,
            batches,
            self.source.num_classes,
        )
        counts = np.array(self.split.class_counts)
        return {
            "test_loss": result.loss,
            "accuracy": result.accuracy,
            "balanced_accuracy": result.balanced_accuracy,
            **group_accuracy(result.per_class, counts, self.groups),
            "group_confusion": group_confusion(result.confusion, counts, self.groups),
            "ece": result.calibration.ece,
            "confidence_bins": {
                name: values.tolist()
                for name, values in dataclasses.asdict(result.calibration).items()
            },
            "per_class": result.per_class.tolist(),
            "unreadable_evaluated": self._feed.num_evaluated - int(result.confusion.sum()),
        }

    def _logits(self, built: BuiltStage, state: TrainState, images: Any) -> Any:
        if self.recipe.tte is None:
            return built.logits(state, images)
        # Each image is five crops, one below the other.
        number, _, width, channels = images.shape
        logits = built.logits(state, images.reshape(-1, width, width, channels))
        return logits.reshape(number, -1, self.source.num_classes).mean(axis=1)


def _digest(indices: np.ndarray) -> str:
    return hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()[:16]
