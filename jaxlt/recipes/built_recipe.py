"""One recipe, ready to run with any seed: data loaded, split made, step compiled once."""

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from jaxlt.data import Pipeline
from jaxlt.devices.cluster import on_host
from jaxlt.devices.processes import are_several, as_first_says, by_first, in_agreement
from jaxlt.devices.sharding import Layout
from jaxlt.evaluation import evaluate, group_accuracy, group_confusion
from jaxlt.recipes.built_stage import BuiltStage, steps_of
from jaxlt.recipes.input_pipelines import InputPipelines
from jaxlt.recipes.methods import with_radius
from jaxlt.recipes.recipe import UNMEASURED, Execution, Recipe, code_version
from jaxlt.recipes.run_directory import data_identity, describe_in
from jaxlt.recipes.stage import Stage
from jaxlt.recipes.stage_ends import enter, leave
from jaxlt.runs.run import Callback
from jaxlt.runs.workdir import Workdir
from jaxlt.training import Job, JobStage, Program, Steps, TrainState, train

_logger = logging.getLogger(__name__)

ProgramOf: TypeAlias = Callable[[int], tuple[Program, Pipeline]]


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a recipe, in its directory; `rho` takes the place of the first stage's radius."""

    seed: int
    path: Path
    rho: float | None = None

    @property
    def name(self) -> str:
        """Seed and radius."""
        return f"seed {self.seed}" + ("" if self.rho is None else f" rho {self.rho:g}")


class BuiltRecipe:
    """A recipe with its data, networks and compiled steps; its runs share all of them.

    With `check_images`, all images of the split and those evaluated are decoded once. UsageError
    says that the recipe does not fit its data, or that images cannot be decoded.
    """

    def __init__(
        self, recipe: Recipe, execution: Execution = UNMEASURED, *, check_images: bool = False
    ):
        self.recipe, self.execution = recipe, execution
        self._layout = Layout(execution.shard_parameters)
        in_agreement(lambda: self._load(check_images))
        if check_images:
            by_first(self._feed.check_images)
        if recipe.init_from is None:
            weights = recipe.network.initial_weights(self.source, self._feed)
        else:
            from jaxlt.recipes.initial_run import of_run

            weights = of_run(recipe.network, recipe.init_from, self.source, self._feed)
        self.stages, self._shapes = in_agreement(lambda: self._build(weights))

    def _load(self, check_images: bool) -> None:
        # The check names what is unreadable, all of it.
        self.source = self.recipe.data.load(skip_unreadable=check_images)
        self.split = self.recipe.data.split(self.source)
        evaluation, has_test = self.recipe.evaluation, len(self.source.test.labels) > 0
        if not (has_test or self.source.val is None or self.recipe.data.holds_out):
            if evaluation.images == "test":
                name = self.source.name
                _logger.info("%s has no test images: its validation images are evaluated", name)
            self.recipe = self.recipe.replace(evaluation=evaluation.replace(images="val"))
        kind = self.execution.pipeline
        self._feed = InputPipelines(self.recipe, self.source, self.split, kind, self._layout)

    def _build(self, weights: Mapping[str, Any]) -> tuple[list[BuiltStage], TrainState]:
        """Returns the stages and the shapes of a run's state; nothing is written before it."""
        # In a later stage the classifier may be of another kind.
        later = {
            collection: {name: module for name, module in modules.items() if name != "classifier"}
            for collection, modules in weights.items()
        }
        skip = self.execution.skip_nonfinite > 0
        stages = []
        for number, stage in enumerate(self.recipe.stages):
            given = later if number else weights
            built = BuiltStage(self.recipe, number, self._feed, given, skip_nonfinite=skip)
            stages.append(built)
            if isinstance(stage, Stage):
                # Refuses what the pipeline cannot do.
                self.pipeline(number, seed=0)
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

    def pipeline(self, number: int, seed: int) -> Pipeline:
        """Returns the training data of a seed in a stage that has steps."""
        stage = self.recipe.stages[number]
        assert isinstance(stage, Stage)
        return self._feed.pipeline(seed, stage, number)

    def check(self, member: Member) -> None:
        """Raises UsageError if the radius is out of range."""
        self._recipe_of(member).first.build_optimizer(self.split.class_counts)

    def _recipe_of(self, member: Member) -> Recipe:
        if member.rho is None:
            return self.recipe
        method = with_radius(self.recipe.first.method, member.rho).replace()
        return self.recipe.with_first(method=method)

    @functools.cached_property
    def _data(self) -> dict[str, Any]:
        data, images = self.recipe.data, self.recipe.evaluation.images
        return data_identity(data, images, self.source, self.split)

    def workdir(self, member: Member) -> Workdir:
        """Opens a run's directory, created if missing; UsageError says it is another run's."""
        images = hashlib.sha256(self.split.indices.astype("<i8").tobytes()).hexdigest()[:16]
        identity = {**self._recipe_of(member).identity(), "seed": member.seed, "images": images}
        # The other processes need not read what the first compares.
        by_first(lambda: identity.update(data=self._data))
        workdir = Workdir(member.path, identity, code_version(self.recipe))
        by_first(lambda: describe_in(member.path, self.recipe, self.source, self.split))
        return workdir

    def describe(self, label: str, where: str) -> None:
        """Logs what is about to be trained."""
        counts, stages = self.split.class_counts, len(self.stages)
        trees = self._shapes.params, self._shapes.frozen
        trained, frozen = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in trees)
        parameters = f"{trained} and {frozen} frozen" if frozen else f"{trained}"
        network = f"{self.recipe.network.label} with {parameters} parameters"
        images = f"{self.num_images} training images in {len(counts)} classes"
        of_a_class = f"({max(counts)} to {min(counts)} a class)"
        steps = f"{self.num_steps} steps" + (f" in {stages} stages" if stages > 1 else "")
        data = f"{self.recipe.data.name}, {images} {of_a_class}"
        _logger.info("%s: %s, %s, %s, %s", label, data, network, steps, where)

    def job(self, member: Member) -> Job:
        """Prepares the training of one run."""

        def program_of(number: int) -> tuple[Program, Pipeline]:
            pipeline = self.pipeline(number, member.seed)
            # A radius given beside the recipe is the first stage's.
            return self.stages[number].program(pipeline, None if number else member.rho), pipeline

        return self.job_from(self.stages[0].initial_state(member.seed), program_of)

    def job_from(self, state: TrainState, program_of: ProgramOf) -> Job:
        """Prepares training from a state, with the compiled steps and data of a stage's number."""
        return Job(
            initial_state=on_host(state) if self.execution.shard_parameters else state,
            stages=tuple(self._job_stage(built, program_of) for built in self.stages),
            skip_nonfinite=self.execution.skip_nonfinite,
        )

    def _job_stage(self, built: BuiltStage, program_of: ProgramOf) -> JobStage:
        steps, stage, every = None, built.stage, self.execution.measure_every
        if isinstance(stage, Stage):
            steps = Steps(
                *program_of(built.number),
                num_steps=stage.num_steps(self.num_images),
                eval_steps=stage.num_steps(self.num_images, self.recipe.evaluation.epochs),
                measurements=built.measurements(every) if every else None,
                pace=functools.partial(stage.pace, self.num_images),
            )
        changes = built.training.swa_epoch is not None or built.regime.spectral_norm is not None
        return JobStage(
            steps=steps,
            evaluate=lambda state: self._evaluate(state, built),
            template=lambda: built.initial_state(0),
            enter=functools.partial(enter, built) if built.number else None,
            leave=functools.partial(leave, built) if changes else None,
        )

    def _logits(self, built: BuiltStage, state: TrainState, images: Any) -> Any:
        number, _, width, channels = images.shape
        crops = self.recipe.evaluation.test_time_augmentation is not None
        if crops:  # five of each image, one below the other
            images = images.reshape(-1, width, width, channels)
        found = built.logits(state, images)
        if crops:
            found = found.reshape(number, -1, len(self.split.class_counts)).mean(axis=1)
        return np.asarray(found) if are_several() else found

    def _evaluate(self, state: TrainState, built: BuiltStage) -> dict[str, Any]:
        counts, groups = np.array(self.split.class_counts), self.recipe.evaluation.shot_groups
        batches: Any = self._feed.evaluated()
        result = evaluate(functools.partial(self._logits, built, state), batches, len(counts))
        bins = dataclasses.asdict(result.calibration)
        return {
            "test_loss": result.loss,
            "accuracy": result.accuracy,
            "balanced_accuracy": result.balanced_accuracy,
            **group_accuracy(result.per_class, counts, groups),
            "group_confusion": group_confusion(result.confusion, counts, groups),
            "ece": result.calibration.ece,
            "confidence_bins": {name: values.tolist() for name, values in bins.items()},
            "per_class": result.per_class.tolist(),
            "unreadable_evaluated": self._feed.num_evaluated - int(result.confusion.sum()),
        }


def train_members(
    built: BuiltRecipe,
    members: Sequence[Member],
    *,
    label: str,
    callbacks: Sequence[Callback] = (),
) -> list[dict[str, Any]]:
    """Trains members to the end, begun ones being resumed, and returns their last evaluations.

    Their seeds or radii and their directories differ; with callbacks they train apart. `label` is
    the recipe's name in progress lines. UsageError says that a radius is out of range, or that a
    directory is another recipe's; nothing in it is changed then.
    """
    in_agreement(lambda: [built.check(member) for member in members])
    runs = [(member, built.workdir(member)) for member in members]
    together = 1
    if len(runs) > 1 and not callbacks:
        from jaxlt.recipes import ensemble

        together = ensemble.most_together(built, runs)
        if together > 1:
            ensemble.train_in_groups(built, runs, together, label)
    if together == 1:
        for member, workdir in runs:
            train_alone(built, member, workdir, label, callbacks)
    return [_result(workdir) for _, workdir in runs]


def train_alone(
    built: BuiltRecipe,
    member: Member,
    workdir: Workdir,
    label: str,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Trains one member, see `train_members`."""
    name = f"{label} {member.name}"
    built.describe(name, str(workdir.path))
    train(
        built.job(member),
        workdir,
        keep_checkpoints=built.execution.keep_checkpoints,
        label=name,
        callbacks=callbacks,
    )


def _result(workdir: Workdir) -> dict[str, Any]:
    result = workdir.read_result()
    assert result is not None, "train returns after the result is written"
    picture = workdir.path / "reliability.png"
    if as_first_says(not picture.exists()):
        from jaxlt.evaluation.calibration import draw_run

        by_first(lambda: draw_run(workdir.path.name, result["confidence_bins"], picture))
    return result
