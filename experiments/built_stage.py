"""One stage of a recipe on its data: network, optimizer, compiled steps, and its two ends."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.build import (
    build_loss,
    build_model,
    build_optimizer,
    build_regime,
    build_spectral_norm,
)
from experiments.feed import Feed
from experiments.parameters import trained
from experiments.paths import Paths, StepPath
from experiments.recipe import Recipe
from experiments.stage import Stage
from jaxlt import UsageError
from jaxlt.data import Pipeline, Source, Split
from jaxlt.devices.sharding import DATA, Layout, replicated
from jaxlt.evaluation import ShotGroups
from jaxlt.training import (
    Measurements,
    Program,
    TrainState,
    make_logits_fn,
    make_measure_fn,
    make_state_fn,
    make_train_step,
    next_stage,
    over_replicas,
    over_shards,
    steps_per_chunk,
)
from jaxlt.training.step.decoupling import nearest_class_mean, tau_normalised, with_unit_scale
from jaxlt.training.step.measurement import MeasureFn
from jaxlt.training.step.replicas import measured_over_replicas
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
        feed: Feed,
        weights: Mapping[str, Mapping[str, Any]],
        layout: Layout,
        *,
        skip_nonfinite: bool = False,
    ):
        self._layout = layout
        self.stage = recipe.stages[number]
        self._number, self._counts, self._feed = number, split.class_counts, feed
        self._skip_nonfinite = skip_nonfinite
        shots = ShotGroups(recipe.many_above, recipe.few_below)
        self._groups = shots.assign(np.array(split.class_counts))
        before = recipe.stages[:number]
        first_step = sum(steps_of(stage, len(split.indices)) for stage in before)
        self._regime = build_regime(self.stage, self._counts, first_step, recipe.micro_batch)
        self.model = build_model(
            recipe,
            source.num_classes,
            source.image_shape,
            recipe.heads[number],
            frozen_trunk_norm=self.stage.batch_norm == "last_block",
        )
        if self.stage.kind == "train":
            layout.check_divisible(self.stage.batch_size)
        devices, shards = layout.mesh.size, self.stage.perturbation_shards
        if shards not in (1, devices):
            raise UsageError(
                f"perturbation_shards must be 1 or the number of devices, {devices}, got {shards}"
            )
        if recipe.micro_batch is not None and self.model.couples_examples:
            raise UsageError(
                f"micro_batch must be None for {recipe.model}: its batch norm takes the whole batch"
            )
        self._image_shape = source.image_shape
        self._spectral_norm = build_spectral_norm(self.stage)
        self._optimizer = build_optimizer(self.stage, self._counts)
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
        self._paths = Paths(
            self.stage, self._counts, self.model, self._regime, by_group=self._on_one_device
        )
        self._programs: dict[tuple[float, ...], Program] = {}

    def program(self, radii: tuple[float, ...], pipeline: Pipeline) -> Program:
        """Returns the compiled steps of one run, or of several together, one radius each."""
        if radii not in self._programs:
            self._programs[radii] = Program(
                pipeline,
                lambda path: self._steps(path, radii),
                self._paths.choose,
                measure_fn=self._measure_fn(len(radii)),
                boundaries=self._paths.boundaries,
                chunk_steps=steps_per_chunk(
                    len(radii) * self._feed.bytes_per_step(self.stage.batch_size)
                ),
                layout=self._layout,
            )
        return self._programs[radii]

    def _steps(self, path: StepPath, radii: tuple[float, ...]) -> TrainStep:
        """Returns the step of one run, or of several under `vmap`."""
        if len(set(radii)) == 1:
            step = self._step(path, radii[0])
            return step if len(radii) == 1 else over_replicas(step)

        def step_of_replica(state: TrainState, images: jax.Array, labels: jax.Array, rho: Any):
            return self._step(path, rho)(state, images, labels)

        steps = over_replicas(step_of_replica)
        return lambda state, images, labels: steps(state, images, labels, jnp.array(radii))

    def _step(self, path: StepPath, rho: float) -> TrainStep:
        stage = dataclasses.replace(self.stage, rho=rho)
        axis_name = DATA if stage.perturbation_shards > 1 else None
        step = make_train_step(
            self.model,
            build_optimizer(
                stage, self._counts, second_stage=path.second_stage, axis_name=axis_name
            ),
            build_loss(stage, self._counts),
            len(self._counts),
            capacity=path.capacity,
            passes_by_group=self._on_one_device,
            regime=self._regime,
            skip_nonfinite=self._skip_nonfinite,
            axis_name=axis_name,
        )
        return step if axis_name is None else over_shards(step, self._layout.mesh)

    def _measure_fn(self, replicas: int) -> MeasureFn:
        """Returns the measurement of one run, or of several under `vmap`."""
        measure = make_measure_fn(
            self.model,
            build_loss(self.stage, self._counts),
            np.stack(list(self._groups.values())),
            regime=self._regime,
            mask=lambda params: trained(self.stage, params),
        )
        return measure if replicas == 1 else measured_over_replicas(measure)

    def measurements(self, every: int) -> Measurements:
        """Returns what is measured every so many steps: by shot group, and of the tail."""
        tail = np.array(self._counts) < self.stage.tail_threshold
        return Measurements(every, self._groups, tail)

    def enter(self, state: TrainState) -> TrainState:
        """Returns the state in which a later stage than the first begins, from the one before."""
        classifier = {
            "train": self._classifier_to_train,
            "tau_norm": lambda state: tau_normalised(
                state.params["classifier"], self.stage.norm_tau
            ),
            "ncm": self._class_means,
        }[self.stage.kind](state)
        params = {**state.params, "classifier": classifier}
        return next_stage(state, params, self._optimizer, self._spectral_norm)

    def _classifier_to_train(self, state: TrainState) -> dict[str, Any]:
        if self.stage.reset_classifier:
            key = jax.random.fold_in(state.key, state.step)
            image = jnp.zeros((1, *self._image_shape))
            key = jax.random.fold_in(key, _NEW_CLASSIFIER)
            return dict(self.model.init(key, image, train=False)["params"]["classifier"])
        classifier = state.params["classifier"]
        if self.stage.learn_scale and "scale" not in classifier:
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
        return self.stage.swa_epoch is not None or self._spectral_norm is not None

    def leave(self, state: TrainState) -> TrainState:
        """Returns the state in which the stage ends: averaged and normalised where it says so."""
        averages = self.stage.swa_epoch is not None
        if averages:
            params = averaged_params(state.opt_state, state.params)
            state = dataclasses.replace(state, params=params)
        if self._spectral_norm is not None:
            state = _normalised(state, self._spectral_norm)
        if averages and self.stage.trainable in ("all", "last_block"):
            # No step has had these weights. Those of a frozen network are what they were.
            place = self._layout.place
            statistics = recomputed_statistics(
                self.model,
                place(state.variables()["params"]),
                place(state.batch_stats),
                self._feed.epoch(self.stage, self._number),
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


def steps_of(stage: Stage, num_images: int) -> int:
    """Returns how many steps a stage takes."""
    return stage.num_steps(num_images) if stage.kind == "train" else 1
