"""What happens where stages meet: how one begins from the one before, and how it ends."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt.devices.sharding import replicated
from jaxlt.models import ImageClassifier
from jaxlt.recipes.built_stage import BuiltStage
from jaxlt.recipes.input_pipelines import InputPipelines
from jaxlt.recipes.stage import NearestClassMean, TauNorm
from jaxlt.training import TrainState, next_stage
from jaxlt.training.step.decoupling import nearest_class_mean, tau_normalized, with_unit_scale
from jaxlt.training.step.weight_average import averaged_params, recomputed_statistics

# What entering a stage draws from the step's key, beside what the steps draw.
_NEW_CLASSIFIER = 3
# Averaged weights are not those that the vectors have followed.
_POWER_ITERATIONS = 20


def enter(built: BuiltStage, state: TrainState) -> TrainState:
    """Returns the state in which a later stage than the first begins, from the one before."""
    classifier = state.params["classifier"]
    if isinstance(built.stage, TauNorm):
        classifier = tau_normalized(classifier, built.stage.tau)
    elif isinstance(built.stage, NearestClassMean):
        backbone = {name: leaf for name, leaf in state.params.items() if name != "classifier"}
        features, labels = training_features(built.feed, built.model, state.variables(backbone))
        means = nearest_class_mean(features, labels, len(built.class_counts))
        classifier = jax.tree.map(jnp.asarray, means)
    elif built.training.reset_classifier:
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), _NEW_CLASSIFIER)
        image = jnp.zeros((1, *built.feed.image_shape))
        classifier = dict(built.model.init(key, image, train=False)["params"]["classifier"])
    elif built.training.learn_scale and "scale" not in classifier:
        classifier = with_unit_scale(classifier)
    params = {**state.params, "classifier": classifier}
    return next_stage(state, params, built.optimizer, built.regime.spectral_norm)


def training_features(
    feed: InputPipelines, model: ImageClassifier, variables: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Returns features (N, D) and labels (N,) of the split's training images, unaugmented."""

    @functools.partial(jax.jit, out_shardings=replicated(feed.layout.mesh))
    def features_of(variables: Any, images: Any) -> Any:
        return model.apply(variables, images, train=False, method="features")

    variables = feed.layout.place(variables)
    features, labels = [], []
    for batch in feed.training_images():
        real = batch.labels >= 0
        features.append(np.asarray(features_of(variables, batch.images))[real])
        labels.append(batch.labels[real])
    return np.concatenate(features), np.concatenate(labels)


def leave(built: BuiltStage, state: TrainState) -> TrainState:
    """Returns the state in which a stage ends: averaged and normalized where it says so."""
    averages, norm = built.training.swa_epoch is not None, built.regime.spectral_norm
    if averages:
        state = dataclasses.replace(state, params=averaged_params(state.opt_state, state.params))
    if norm is not None:
        # Normalized again, they stay as they are.
        vectors = state.singular_vectors
        for _ in range(_POWER_ITERATIONS):
            vectors = norm.advance(state.params, vectors)
        params = norm(state.params, vectors)
        state = dataclasses.replace(state, params=params, singular_vectors=vectors)
    if averages and built.training.trainable in ("all", "last_block"):
        # No step has had these weights. Those of a frozen network are what they were.
        place = built.feed.layout.place
        params, statistics = place(state.variables()["params"]), place(state.batch_stats)
        statistics = recomputed_statistics(built.model, params, statistics, _epoch(built))
        state = dataclasses.replace(state, batch_stats=statistics)
    return state


def _epoch(built: BuiltStage) -> Iterator[jax.Array]:
    """Yields the images of an epoch's batches, without mixup, spread over the devices."""
    stage = built.training
    pipeline = built.feed.pipeline(0, stage, built.number)
    for chunk in pipeline.chunks(0, stage.num_steps(len(built.feed.split.indices), 1), 1):
        step = jax.tree.map(lambda leaf: leaf[0], chunk.payload)
        yield built.feed.layout.spread(pipeline.read(pipeline.resident, step)[0], axis=0)
