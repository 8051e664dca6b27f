"""One recipe, ready to run with any seed: data loaded, split made, step compiled once."""

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.build import (
    build_loss,
    build_model,
    build_optimizer,
    count_parameters,
    num_steps,
)
from experiments.execution import PipelineKind
from experiments.feed import Feed
from experiments.paths import Paths, StepPath
from experiments.recipe import Recipe
from jaxlt.data import Pipeline, Source, Split, load_source, long_tailed_split
from jaxlt.evaluation import ShotGroups, evaluate, group_accuracy
from jaxlt.training import (
    Job,
    Program,
    ReplicaPipeline,
    TrainState,
    Workdir,
    make_logits_fn,
    make_state_fn,
    make_train_step,
    stack,
    steps_per_chunk,
)
from jaxlt.training.step import TrainStep

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
    """A recipe with its data, network and compiled steps; its runs share all of them.

    Args:
        recipe: what to run.
        pipeline: whether the host or the device makes the batches.

    Attributes:
        suits_loops: see `ImageClassifier`.

    Raises:
        UsageError: the recipe does not fit its data, or a number in it is out of range.
    """

    def __init__(self, recipe: Recipe, pipeline: PipelineKind = "tf"):
        self.recipe = recipe
        self.groups = ShotGroups(recipe.many_above, recipe.few_below)
        self.source = load_source(recipe.dataset, image_size=recipe.image_size)
        self.split = _split(recipe, self.source)
        self._feed = Feed(recipe, self.source, self.split, pipeline)
        self._model = build_model(recipe, self.source.num_classes, self.source.image_shape)
        self.suits_loops = self._model.suits_loops
        optimizer = build_optimizer(recipe, self.split.class_counts)
        self._initial_state = make_state_fn(self._model, optimizer, self.source.image_shape)
        self._logits = make_logits_fn(self._model)
        self._paths = Paths(recipe, self.split.class_counts, self._model)
        self._programs: dict[tuple[float, ...], Program] = {}

    @property
    def num_images(self) -> int:
        """Training images of the split."""
        return len(self.split.indices)

    @property
    def num_steps(self) -> int:
        """Steps of a run."""
        return num_steps(self.recipe, self.num_images)

    def check(self, replica: Replica) -> None:
        """Raises UsageError if the radius is out of range."""
        build_optimizer(self._recipe_of(replica.rho), self.split.class_counts)

    def workdir(self, replica: Replica) -> Workdir:
        """Opens a run's directory, created if missing.

        Raises:
            UsageError: it is not this recipe's; nothing in it is changed then.
        """
        recipe = dataclasses.asdict(self._recipe_of(replica.rho))
        digest = _digest(self.split.indices)
        described = {**recipe, "seed": replica.seed, "images": digest}
        workdir = Workdir(replica.path, described)
        if not (replica.path / "split.json").exists():
            self.split.write(replica.path / "split.json")
        return workdir

    def describe(self, label: str, where: str) -> None:
        """Logs what is about to be trained."""
        _logger.info(
            "%s: %s, %d training images in %d classes (%d to %d a class), %s with %d "
            "parameters, %d steps, %s",
            label,
            self.recipe.dataset,
            self.num_images,
            self.source.num_classes,
            max(self.split.class_counts),
            min(self.split.class_counts),
            self.recipe.model,
            count_parameters(jax.eval_shape(lambda: self._initial_state(0)).params),
            self.num_steps,
            where,
        )

    def job(self, replicas: Sequence[Replica]) -> Job:
        """Prepares training: of one run for `train`, of several for `train_together`."""
        pipelines = [self._feed.pipeline(replica.seed) for replica in replicas]
        states = [self._initial_state(replica.seed) for replica in replicas]
        alone = len(replicas) == 1
        pipeline = pipelines[0] if alone else ReplicaPipeline(pipelines)
        radii = tuple(self._recipe_of(replica.rho).rho for replica in replicas)
        if radii not in self._programs:
            self._programs[radii] = self._program(radii, pipeline)
        return Job(
            initial_state=states[0] if alone else stack(states),
            program=self._programs[radii],
            pipeline=pipeline,
            evaluate=self._evaluate,
            num_steps=self.num_steps,
            eval_steps=num_steps(self.recipe, self.num_images, self.recipe.eval_epochs),
        )

    def _program(self, radii: tuple[float, ...], pipeline: Pipeline) -> Program:
        return Program(
            pipeline,
            lambda path: self._steps(path, radii),
            self._paths.choose,
            boundaries=self._paths.boundaries,
            chunk_steps=steps_per_chunk(len(radii) * self._feed.bytes_per_step),
        )

    def _steps(self, path: StepPath, radii: tuple[float, ...]) -> TrainStep:
        """Returns the step of one run, or of several under `vmap`."""
        if len(set(radii)) == 1:
            step = self._step(path, self._recipe_of(radii[0]))
            return step if len(radii) == 1 else jax.vmap(step)

        def step_of_replica(rho: Any, state: TrainState, images: jax.Array, labels: jax.Array):
            return self._step(path, self._recipe_of(rho))(state, images, labels)

        return functools.partial(jax.vmap(step_of_replica), jnp.array(radii))

    def _step(self, path: StepPath, recipe: Recipe) -> TrainStep:
        counts = self.split.class_counts
        return make_train_step(
            self._model,
            build_optimizer(recipe, counts, second_stage=path.second_stage),
            build_loss(recipe, counts),
            self.source.num_classes,
            capacity=path.capacity,
            hold_statistics=recipe.hold_statistics,
        )

    def _recipe_of(self, rho: float | None) -> Recipe:
        return self.recipe if rho is None else dataclasses.replace(self.recipe, rho=rho)

    def _evaluate(self, state: TrainState) -> dict[str, Any]:
        batches: Any = self._feed.evaluation_batches()
        result = evaluate(
            lambda images: self._logits(state, jnp.asarray(images)),
            batches,
            self.source.num_classes,
        )
        counts = np.array(self.split.class_counts)
        return {
            "test_loss": result.loss,
            "accuracy": result.accuracy,
            "balanced_accuracy": result.balanced_accuracy,
            **group_accuracy(result.per_class, counts, self.groups),
            "per_class": result.per_class.tolist(),
        }


def _split(recipe: Recipe, source: Source) -> Split:
    file = Path(recipe.split_file) if recipe.split_file else None
    if file is not None and file.exists():
        split = Split.read(file, source)
        _logger.info(
            "%s rules: %s, imbalance factor %g, %s images of each class with seed %d",
            file,
            split.profile,
            split.imbalance_factor,
            split.rule,
            split.seed,
        )
        return split
    split = long_tailed_split(
        source,
        profile=recipe.profile,
        imbalance_factor=recipe.imbalance_factor,
        max_per_class=recipe.max_per_class,
        class_order=recipe.class_order,
        rule=recipe.selection,
        seed=recipe.split_seed,
    )
    if file is not None:
        split.write(file)
    return split


def _digest(indices: np.ndarray) -> str:
    return hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()[:16]
