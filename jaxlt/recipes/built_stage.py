"""One stage of a recipe on its data: network, optimizer, and the steps that training compiles."""

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlt import UsageError, training
from jaxlt.data import Pipeline
from jaxlt.devices.sharding import DATA, data_mesh, replicated
from jaxlt.models import ImageClassifier
from jaxlt.recipes.input_pipelines import InputPipelines
from jaxlt.recipes.methods import REUSED, ClassCounts, Reusing, with_radius
from jaxlt.recipes.network import Network
from jaxlt.recipes.parameters import trained
from jaxlt.recipes.recipe import Recipe
from jaxlt.recipes.stage import AnyStage, Stage
from jaxlt.training import Measurements, Program, Regime, TrainState
from jaxlt.training.loop.program import steps_per_chunk
from jaxlt.training.step.measurement import MeasureFn
from jaxlt.training.step.shards import over_shards
from jaxlt.training.step.spectral_norm import SpectralNorm
from jaxlt.training.step.train_step import TrainStep

# Shares of the batch that a program may have room for. Few, since each is a compilation.
_CAPACITIES = (1 / 8, 1 / 4, 1 / 2)


class StepForm(NamedTuple):
    """One form of the step: the method's phase, and room for images of the tail.

    The room, see `jaxlt.Capacity`, is a shard's where each is perturbed alone; None for all images.
    """

    phase: int
    capacity: int | None


class StepForms:
    """Chooses the form of each step of a stage, on the host; each form is compiled once.

    `boundaries` are the steps at which the choice does not depend on the batch alone.
    """

    def __init__(
        self,
        stage: Stage,
        class_counts: ClassCounts,
        model: ImageClassifier,
        regime: Regime,
        *,
        by_group: bool = True,
    ):
        self._method, self._counts = stage.method, class_counts
        self.every = stage.method.every if isinstance(stage.method, Reusing) else 1
        self.boundaries = stage.method.phases(stage.clock(sum(class_counts)))
        self._shards, self._capacities = stage.perturbation_shards, []
        separable = by_group and regime.factored and regime.separates_images(model)
        # Where a part of the batch decides directions, passes are over all images.
        separable = separable and getattr(stage.method, "ascent_share", 1.0) == 1
        # Networks that suit loops take as many images as there are.
        if separable and not model.suits_loops:
            rooms = (int(share * stage.batch_size / self._shards) for share in _CAPACITIES)
            self._capacities = [room for room in rooms if room > 0]

    def choose(self, step: int, labels: np.ndarray) -> StepForm:
        """Returns the cheapest form that is exact for a chunk from a step on, of labels (K, B)."""
        if step % self.every:
            return StepForm(REUSED, None)
        phase = sum(step >= boundary for boundary in self.boundaries)
        group = self._method.perturbed_alone(self._counts, phase)
        if group is None:
            return StepForm(phase, None)
        of_shards = group[labels].reshape(-1, labels.shape[-1] // self._shards)
        needed = of_shards.sum(axis=-1).max()
        fitting = [capacity for capacity in self._capacities if capacity >= needed]
        return StepForm(phase, min(fitting, default=None))


def check_micro_batch(network: Network, model: ImageClassifier) -> None:
    """Raises UsageError if gradients are to be accumulated where batch norm takes the batch."""
    if network.micro_batch is not None and model.couples_examples:
        need = f"none for {network.label}, whose batch norm takes the whole batch"
        raise UsageError(f"network.micro_batch must be {need}, got {network.micro_batch}")


def build_regime(
    stage: Stage, class_counts: ClassCounts, first_step: int = 0, micro_batch: int | None = None
) -> Regime:
    """Builds what a stage, from `first_step` of the run on, does beside its loss."""
    features = None
    if stage.adversary is not None:
        loss, clock = stage.build_loss(class_counts), stage.clock(sum(class_counts))
        features = stage.adversary.build(loss, class_counts, clock)
    return Regime(
        first_step=first_step,
        mixup=stage.augmentation.mixup,
        row_losses=stage.row_losses,
        loss_of_features=features,
        running_statistics=stage.batch_norm == "running",
        hold_statistics=stage.batch_norm == "held",
        spectral_norm=None if stage.spectral_norm == "none" else SpectralNorm(stage.spectral_norm),
        micro_batch=micro_batch,
    )


def build_step(
    stage: Stage,
    model: ImageClassifier,
    class_counts: ClassCounts,
    regime: Regime,
    form: StepForm,
    *,
    passes_by_group: bool = True,
    skip_nonfinite: bool = False,
) -> TrainStep:
    """Builds the step of a stage, a pure function.

    Args:
        stage: the stage; its `perturbation_shards` are 1 or the number of devices.
        model: the network.
        class_counts: training images of each class.
        regime: of the stage, see `build_regime`.
        form: of the step, see `StepForms`.
        passes_by_group: see `make_train_step`.
        skip_nonfinite: see there.
    """
    axis_name = DATA if stage.perturbation_shards > 1 else None
    step = training.make_train_step(
        model,
        stage.build_optimizer(class_counts, phase=form.phase, axis_name=axis_name),
        stage.build_loss(class_counts),
        len(class_counts),
        capacity=form.capacity,
        passes_by_group=passes_by_group,
        regime=regime,
        skip_nonfinite=skip_nonfinite,
        axis_name=axis_name,
        ascent_share=getattr(stage.method, "ascent_share", 1.0),
    )
    return step if axis_name is None else over_shards(step, data_mesh())


def steps_of(stage: AnyStage, num_images: int) -> int:
    """Returns how many steps a stage takes."""
    return stage.num_steps(num_images) if isinstance(stage, Stage) else 1


class BuiltStage:
    """A stage, ready to be run with any seed and radius.

    Its `weights` are the variables that are not drawn, see `make_state_fn`. Where the `stage` has
    no steps, `training` is one with a plain optimizer. `initial_state` takes a seed, `logits` a
    state and images. UsageError says what the network cannot do.
    """

    def __init__(
        self,
        recipe: Recipe,
        number: int,
        feed: InputPipelines,
        weights: Mapping[str, Mapping[str, Any]],
        *,
        skip_nonfinite: bool = False,
    ):
        self.stage, self.number, self.feed = recipe.stages[number], number, feed
        self.training = self.stage if isinstance(self.stage, Stage) else Stage()
        self.class_counts = counts = feed.split.class_counts
        self._skip_nonfinite = skip_nonfinite
        devices, shards = feed.layout.mesh.size, self.training.perturbation_shards
        if isinstance(self.stage, Stage):
            feed.layout.check_divisible(self.stage.batch_size)
        need = f"1 or the number of devices, {devices}"
        self.training.check("perturbation_shards", shards in (1, devices), need)
        num_images, earlier = len(feed.split.indices), recipe.stages[:number]
        first_step = sum(steps_of(stage, num_images) for stage in earlier)
        self.regime = build_regime(self.training, counts, first_step, recipe.network.micro_batch)
        frozen = self.training.batch_norm == "last_block"
        self.model = recipe.network.build(
            len(counts), feed.image_shape, recipe.heads[number], frozen_backbone_norm=frozen
        )
        check_micro_batch(recipe.network, self.model)
        self.optimizer = self.training.build_optimizer(counts)
        norm = self.regime.spectral_norm
        self.initial_state = training.make_state_fn(
            self.model, self.optimizer, feed.image_shape, norm, weights=weights
        )
        whole = replicated(feed.layout.mesh)
        self.logits = training.make_logits_fn(self.model, norm, out_sharding=whole)
        self._groups = recipe.evaluation.shot_groups.assign(np.array(counts))
        # Of the images that a step sees together.
        self._on_one_device = devices == shards
        self._forms = StepForms(
            self.training, counts, self.model, self.regime, by_group=self._on_one_device
        )
        self._programs: dict[Hashable, Program] = {}

    def program(self, pipeline: Pipeline, rho: float | None = None) -> Program:
        """Returns the compiled steps of one run, of another radius than the recipe's if given."""
        return self.compiled(rho, pipeline, lambda form: self.step(form, rho), self.measure)

    def measure(
        self, state: TrainState, images: jax.Array, labels: jax.Array
    ) -> dict[str, jax.Array]:
        """Measures at the state of one run."""
        measure = training.make_measure_fn(
            self.model,
            self.training.build_loss(self.class_counts),
            np.stack(list(self._groups.values())),
            regime=self.regime,
            mask=functools.partial(trained, self.training.trainable),
        )
        return measure(state, images, labels)

    def compiled(
        self,
        key: Hashable,
        pipeline: Pipeline,
        step_at: Callable[[StepForm], TrainStep],
        measure_fn: MeasureFn,
        members: int = 1,
    ) -> Program:
        """Returns the program of some steps, made once a key; of several members, under `vmap`."""
        if key not in self._programs:
            sent = members * self.feed.bytes_per_step(self.training.batch_size)
            self._programs[key] = Program(
                pipeline,
                step_at,
                self._forms.choose,
                measure_fn=measure_fn,
                boundaries=self._forms.boundaries,
                # Whole and reused steps are programs of their own, and alternate.
                chunk_steps=1 if self._forms.every > 1 else steps_per_chunk(sent),
                layout=self.feed.layout,
            )
        return self._programs[key]

    def step(self, form: StepForm, rho: float | jax.Array | None = None) -> TrainStep:
        """Returns a form of the step; a radius in place of the recipe's may be traced."""
        stage = self.training
        if rho is not None:
            stage = stage.replace(method=with_radius(stage.method, rho))
        return build_step(
            stage,
            self.model,
            self.class_counts,
            self.regime,
            form,
            passes_by_group=self._on_one_device,
            skip_nonfinite=self._skip_nonfinite,
        )

    def measurements(self, every: int) -> Measurements:
        """Returns what is measured every so many steps: by shot group, and of the method's tail."""
        return Measurements(every, self._groups, self.training.method.tail(self.class_counts))
