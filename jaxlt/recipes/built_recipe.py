"""One recipe, ready to run with any seed: data loaded, split made, step compiled once."""

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlt.data import Source, Split
from jaxlt.devices.processes import are_several, by_first, in_agreement
from jaxlt.devices.sharding import Layout, on_host
from jaxlt.evaluation import ShotGroups, evaluate, group_accuracy, group_confusion
from jaxlt.recipes.built_stage import BuiltStage, steps_of
from jaxlt.recipes.code_version import code_version
from jaxlt.recipes.execution import UNMEASURED, Execution
from jaxlt.recipes.input_pipelines import InputPipelines
from jaxlt.recipes.methods import with_radius
from jaxlt.recipes.parameters import count_parameters
from jaxlt.recipes.recipe import Recipe
from jaxlt.recipes.stage import Stage
from jaxlt.runs.model_description import ModelDescription
from jaxlt.runs.workdir import Workdir
from jaxlt.training import EnsemblePipeline, Job, JobStage, Steps, TrainState, stack
from jaxlt.training.loop.job import unchanged

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a recipe.

    Attributes:
        seed: of parameters, order and augmentation; the split has its own.
        path: the run's directory.
        rho: in place of the first stage's radius, None for the recipe's own.
    """

    seed: int
    path: Path
    rho: float | None = None

    @property
    def name(self) -> str:
        """Seed and radius, for people."""
        return f"seed {self.seed}" + ("" if self.rho is None else f" rho {self.rho:g}")


class BuiltRecipe:
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
        self.groups = ShotGroups(recipe.evaluation.many_above, recipe.evaluation.few_below)
        layout = Layout(execution.shard_parameters)
        self.source, self.split, self._feed = in_agreement(lambda: self._load(layout, check_images))
        if check_images:
            by_first(self._feed.check_images)
        weights = recipe.network.initial_weights(self.source, self._feed)
        self._stages, self._shapes = in_agreement(lambda: self._build(weights, layout))
        self.suits_loops = self._stages[0].model.suits_loops

    def _load(self, layout: Layout, check_images: bool) -> tuple[Source, Split, InputPipelines]:
        data, evaluation = self.recipe.data, self.recipe.evaluation
        # The check names what is unreadable, all of it.
        source = data.load(skip_unreadable=check_images)
        split = data.split(source)
        pipelines = InputPipelines(
            source,
            split,
            self._execution.pipeline,
            data.validation_per_class,
            evaluated=evaluation.images,
            unreadable=data.unreadable,
            test_time_augmentation=evaluation.test_time_augmentation,
            layout=layout,
        )
        return source, split, pipelines

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
            if isinstance(stage, Stage):
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

    def check(self, member: Member) -> None:
        """Raises UsageError if the radius is out of range."""
        self._recipe_of(member.rho).first.build_optimizer(self.split.class_counts)

    def workdir(self, member: Member) -> Workdir:
        """Opens a run's directory, created if missing.

        Raises:
            UsageError: it is not this recipe's; nothing in it is changed then.
        """
        identity = {
            **self._recipe_of(member.rho).identity(),
            "seed": member.seed,
            "images": _digest(self.split.indices),
        }
        workdir = Workdir(member.path, identity, code_version(self.recipe))
        by_first(lambda: self._describe_in(member.path))
        return workdir

    def _describe_in(self, directory: Path) -> None:
        """Writes what later programs read of a run, beside its recipe."""
        for file in (directory / "split.json", self.recipe.data.split_path):
            if file is not None and not file.exists():
                self.split.write(file)
        if not (description := directory / "model.json").exists():
            self._model_description().write(description)

    def _model_description(self) -> ModelDescription:
        """Returns what it takes to predict with a finished run's checkpoint."""
        network, source = self.recipe.network, self.source
        adaptation = network.adapted()
        return ModelDescription(
            model=network.label,
            adaptation=adaptation,
            pretrained=network.pretrained(),
            num_classes=source.num_classes,
            classifier=self.recipe.heads[-1],
            precision=network.precision,
            image_shape=source.image_shape,
            mean=tuple(map(float, source.mean)),
            std=tuple(map(float, source.std)),
            class_names=tuple(source.class_names),
            resize=self.recipe.data.resize,
            class_numbers=tuple(map(int, source.class_numbers)),
            cosine_scale=network.cosine_scale,
        )

    def describe(self, label: str, where: str) -> None:
        """Logs what is about to be trained."""
        stages = len(self._stages)
        trained, frozen = map(count_parameters, (self._shapes.params, self._shapes.frozen))
        _logger.info(
            "%s: %s, %d training images in %d classes (%d to %d a class), %s with %d%s "
            "parameters, %d steps%s, %s",
            label,
            self.recipe.data.name,
            self.num_images,
            self.source.num_classes,
            max(self.split.class_counts),
            min(self.split.class_counts),
            self.recipe.network.label,
            trained,
            f" and {frozen} frozen" if frozen else "",
            self.num_steps,
            f" in {stages} stages" if stages > 1 else "",
            where,
        )

    def job(self, members: Sequence[Member]) -> Job:
        """Prepares training: of one run for `train`, of several for `train_together`."""
        states = [self._stages[0].initial_state(member.seed) for member in members]
        state = states[0] if len(members) == 1 else stack(states)
        return Job(
            initial_state=on_host(state) if self._execution.shard_parameters else state,
            stages=tuple(self._job_stage(number, members) for number in range(len(self._stages))),
            skip_nonfinite=self._execution.skip_nonfinite,
        )

    def _job_stage(self, number: int, members: Sequence[Member]) -> JobStage:
        built = self._stages[number]
        return JobStage(
            steps=self._steps(number, members) if isinstance(built.stage, Stage) else None,
            evaluate=lambda state: self._evaluate(state, built),
            template=lambda: built.initial_state(0),
            enter=built.enter if number else unchanged,
            leave=built.leave if built.changes_at_its_end else unchanged,
        )

    def _steps(self, number: int, members: Sequence[Member]) -> Steps:
        built, every = self._stages[number], self._execution.measure_every
        stage = built.stage
        assert isinstance(stage, Stage)
        pipelines = [self._feed.pipeline(one.seed, stage, number) for one in members]
        pipeline = pipelines[0] if len(members) == 1 else EnsemblePipeline(pipelines)
        # A radius given beside the recipe is the first stage's.
        radii = tuple(built.radius if one.rho is None or number else one.rho for one in members)
        return Steps(
            built.program(radii, pipeline),
            pipeline,
            num_steps=stage.num_steps(self.num_images),
            eval_steps=stage.num_steps(self.num_images, self.recipe.evaluation.epochs),
            measurements=built.measurements(every) if every else None,
        )

    def _recipe_of(self, rho: float | None) -> Recipe:
        if rho is None:
            return self.recipe
        return self.recipe.with_first(method=with_radius(self.recipe.first.method, rho).replace())

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
        if self.recipe.evaluation.test_time_augmentation is None:
            return built.logits(state, images)
        # Each image is five crops, one below the other.
        number, _, width, channels = images.shape
        logits = built.logits(state, images.reshape(-1, width, width, channels))
        return logits.reshape(number, -1, self.source.num_classes).mean(axis=1)


def _digest(indices: np.ndarray) -> str:
    return hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()[:16]
