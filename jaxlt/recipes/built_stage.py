"""One stage of a recipe on its data: network, optimizer, compiled steps, and its two ends."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt import UsageError
from jaxlt.data import Pipeline, Source, Split
from jaxlt.devices.sharding import Layout, replicated
from jaxlt.evaluation import ShotGroups
from jaxlt.recipes.input_pipelines import InputPipelines
from jaxlt.recipes.methods import has_radius, with_radius
from jaxlt.recipes.parameters import trained
from jaxlt.recipes.recipe import Recipe
from jaxlt.recipes.stage import AnyStage, NearestClassMean, Stage, TauNorm
from jaxlt.recipes.step import build_regime, build_step, check_micro_batch
from jaxlt.recipes.step_forms import StepForm, StepForms
from jaxlt.training import (
    Measurements,
    Program,
    TrainState,
    make_logits_fn,
    make_measure_fn,
    make_state_fn,
    next_stage,
    over_members,
    steps_per_chunk,
)
from jaxlt.training.step.decoupling import nearest_class_mean, tau_normalised, with_unit_scale
from jaxlt.training.step.ensemble import measured_over_members
from jaxlt.training.step.measurement import MeasureFn
from jaxlt.training.step.spectral_norm import SpectralNorm
from jaxlt.training.step.train_step import TrainStep
from jaxlt.training.step.weight_average import averaged_params, recomputed_statistics

# What entering a stage draws from the step's key, beside what the steps draw.
_NEW_CLASSIFIER = 3
# Averaged weights are not those that the vectors have followed.
_POWER_ITERATIONS = 20


class BuiltStage:
    """A stage, ready to be run with any seed and radius.

    Args:
        recipe: of the run.
        number: of the stage, from 0.
        source: the data.
        split: its training images.
        feed: their batches.
        weights: variables that are not drawn, see `make_state_fn`. In later stages, which may have
            a classifier of another kind, all but its own.
        layout: where arrays are on the devices.
        skip_nonfinite: see `make_train_step`.

    Raises:
        UsageError: the network cannot do what the recipe asks for.

    Attributes:
        stage: the fields of the recipe that concern the stage.
        model: its network.
        initial_state: from a seed to the state in which a run would begin with this stage.
        logits: from a state and images to logits.
    """

    def __init__(
        self,
        recipe: Recipe,
        number: int,
        source: Source,
        split: Split,
        feed: InputPipelines,
        weights: Mapping[str, Mapping[str, Any]],
        layout: Layout,
        *,
        skip_nonfinite: bool = False,
    ):
        self._layout = layout
        self.stage = recipe.stages[number]
        # A stage without steps has the state of one with a plain optimizer.
        self._trains = self.stage if isinstance(self.stage, Stage) else Stage()
        self._number, self._counts, self._feed = number, split.class_counts, feed
        self._skip_nonfinite = skip_nonfinite
        shots = ShotGroups(recipe.evaluation.many_above, recipe.evaluation.few_below)
        self._groups = shots.assign(np.array(split.class_counts))
        before = recipe.stages[:number]
        first_step = sum(steps_of(stage, len(split.indices)) for stage in before)
        micro_batch = recipe.network.micro_batch
        self._regime = build_regime(self._trains, self._counts, first_step, micro_batch)
        self.model = recipe.network.build(
            source.num_classes,
            source.image_shape,
            recipe.heads[number],
            frozen_trunk_norm=self._trains.batch_norm == "last_block",
        )
        devices, shards = layout.mesh.size, self._trains.perturbation_shards
        if isinstance(self.stage, Stage):
            layout.check_divisible(self.stage.batch_size)
        if shards not in (1, devices):
            raise UsageError(
                f"perturbation_shards must be 1 or the number of devices, {devices}, got {shards}"
            )
        check_micro_batch(recipe.network, self.model)
        self._image_shape = source.image_shape
        self._spectral_norm = self._regime.spectral_norm
        self._optimizer = self._trains.build_optimizer(self._counts)
        self.initial_state = make_state_fn(
            self.model,
            self._optimizer,
            source.image_shape,
            self._spectral_norm,
            weights=weights if number == 0 else _without_classifier(weights),
        )
        self.logits = make_logits_fn(
            self.model, self._spectral_norm, out_sharding=replicated(layout.mesh)
        )
        # Of the images that a step sees together.
        self._on_one_device = devices == shards
        self._forms = StepForms(
            self._trains, self._counts, self.model, self._regime, by_group=self._on_one_device
        )
        self._programs: dict[tuple[float, ...], Program] = {}

    @property
    def radius(self) -> float:
        """The method's radius, 0 for a method without one radius."""
        method = self._trains.method
        return method.rho if has_radius(method) else 0.0  # pyright: ignore[reportAttributeAccessIssue]

    def program(self, radii: tuple[float, ...], pipeline: Pipeline) -> Program:
        """Returns the compiled steps of one run, or of several together, one radius each."""
        if radii not in self._programs:
            self._programs[radii] = Program(
                pipeline,
                lambda form: self._steps(form, radii),
                self._forms.choose,
                measure_fn=self._measure_fn(len(radii)),
                boundaries=self._forms.boundaries,
                chunk_steps=steps_per_chunk(
                    len(radii) * self._feed.bytes_per_step(self._trains.batch_size)
                ),
                layout=self._layout,
            )
        return self._programs[radii]

    def _steps(self, form: StepForm, radii: tuple[float, ...]) -> TrainStep:
        """Returns the step of one run, or of several under `vmap`."""
        if len(set(radii)) == 1:
            step = self._step(form, radii[0])
            return step if len(radii) == 1 else over_members(step)

        def step_of_member(state: TrainState, images: jax.Array, labels: jax.Array, rho: Any):
            return self._step(form, rho)(state, images, labels)

        steps = over_members(step_of_member)
        return lambda state, images, labels: steps(state, images, labels, jnp.array(radii))

    def _step(self, form: StepForm, rho: Any) -> TrainStep:
        stage = self._trains
        if has_radius(stage.method):
            stage = stage.replace(method=with_radius(stage.method, rho))
        return build_step(
            stage,
            self.model,
            self._counts,
            self._regime,
            form,
            passes_by_group=self._on_one_device,
            skip_nonfinite=self._skip_nonfinite,
        )

    def _measure_fn(self, members: int) -> MeasureFn:
        """Returns the measurement of one run, or of several under `vmap`."""
        measure = make_measure_fn(
            self.model,
            self._trains.build_loss(self._counts),
            np.stack(list(self._groups.values())),
            regime=self._regime,
            mask=functools.partial(trained, self._trains.trainable),
        )
        return measure if members == 1 else measured_over_members(measure)

    def measurements(self, every: int) -> Measurements:
        """Returns what is measured every so many steps: by shot group, and of the method's tail."""
        return Measurements(every, self._groups, self._trains.method.tail(self._counts))

    def enter(self, state: TrainState) -> TrainState:
        """Returns the state in which a later stage than the first begins, from the one before."""
        if isinstance(self.stage, TauNorm):
            classifier = tau_normalised(state.params["classifier"], self.stage.tau)
        elif isinstance(self.stage, NearestClassMean):
            classifier = self._class_means(state)
        else:
            classifier = self._classifier_to_train(state)
        params = {**state.params, "classifier": classifier}
        return next_stage(state, params, self._optimizer, self._spectral_norm)

    def _classifier_to_train(self, state: TrainState) -> dict[str, Any]:
        if self._trains.reset_classifier:
            key = jax.random.fold_in(state.key, state.step)
            image = jnp.zeros((1, *self._image_shape))
            key = jax.random.fold_in(key, _NEW_CLASSIFIER)
            return dict(self.model.init(key, image, train=False)["params"]["classifier"])
        classifier = state.params["classifier"]
        if self._trains.learn_scale and "scale" not in classifier:
            return with_unit_scale(classifier)
        return classifier

    def _class_means(self, state: TrainState) -> dict[str, Any]:
        backbone = {name: leaf for name, leaf in state.params.items() if name != "classifier"}
        features, labels = self._feed.training_features(self.model, state.variables(backbone))
        means = nearest_class_mean(features, labels, len(self._counts))
        return jax.tree.map(jnp.asarray, means)

    @property
    def changes_at_its_end(self) -> bool:
        """Whether `leave` does anything."""
        return self._trains.swa_epoch is not None or self._spectral_norm is not None

    def leave(self, state: TrainState) -> TrainState:
        """Returns the state in which the stage ends: averaged and normalised where it says so."""
        averages = self._trains.swa_epoch is not None
        if averages:
            params = averaged_params(state.opt_state, state.params)
            state = dataclasses.replace(state, params=params)
        if self._spectral_norm is not None:
            state = _normalised(state, self._spectral_norm)
        if averages and self._trains.trainable in ("all", "last_block"):
            # No step has had these weights. Those of a frozen network are what they were.
            place = self._layout.place
            statistics = recomputed_statistics(
                self.model,
                place(state.variables()["params"]),
                place(state.batch_stats),
                self._feed.epoch(self._trains, self._number),
            )
            state = dataclasses.replace(state, batch_stats=statistics)
        return state


def _normalised(state: TrainState, norm: SpectralNorm) -> TrainState:
    """Divides the kernels by their spectral norms; normalised again, they stay as they are."""
    vectors = state.singular_vectors
    for _ in range(_POWER_ITERATIONS):
        vectors = norm.advance(state.params, vectors)
    return dataclasses.replace(state, params=norm(state.params, vectors), singular_vectors=vectors)


def _without_classifier(weights: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        collection: {name: module for name, module in modules.items() if name != "classifier"}
        for collection, modules in weights.items()
    }


def steps_of(stage: AnyStage, num_images: int) -> int:
    """Returns how many steps a stage takes."""
    return stage.num_steps(num_images) if isinstance(stage, Stage) else 1
