import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlt.models import MLP, BatchNorm, CifarResNet
from jaxlt.training.step.weight_average import (
    WeightAverageState,
    averaged_params,
    recomputed_statistics,
    weight_average,
)


def initial_params():
    return {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array(0.5)}


def trajectory(transformation, steps):
    """Parameters after each step of a quadratic's descent, and the optimizer's last state."""

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = transformation.update(params, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params, visited = initial_params(), []
    opt_state = transformation.init(params)
    for _ in range(steps):
        params, opt_state = step(params, opt_state)
        visited.append(jax.tree.map(np.asarray, params))
    return visited, opt_state


def after_every(steps, first_epoch=0):
    """Averages after every so many steps."""
    return weight_average(first_epoch, num_images=steps, batch_size=1)


def optimizer(*last):
    return optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(0.1, momentum=0.5), *last)


@settings(max_examples=12, deadline=None)
@given(
    first=st.integers(0, 3),
    num_images=st.integers(7, 30),
    batch_size=st.integers(1, 7),
    steps=st.integers(1, 14),
)
def test_average_is_that_of_the_parameters_after_each_epoch(first, num_images, batch_size, steps):
    average = weight_average(first, num_images=num_images, batch_size=batch_size)
    visited, opt_state = trajectory(optimizer(average), steps)
    ends = [math.ceil((e + 1) * num_images / batch_size) for e in range(first, first + steps)]
    chosen = [visited[end - 1] for end in ends if end <= steps]
    average = jax.jit(averaged_params)(opt_state, visited[-1])
    if not chosen:
        jax.tree.map(np.testing.assert_array_equal, average, visited[-1])
        unchanged = optax.tree.get(opt_state, "average")
        jax.tree.map(np.testing.assert_array_equal, unchanged, initial_params())
        return
    for name in ("w", "b"):
        mean = sum(np.float64(params[name]) for params in chosen) / len(chosen)
        np.testing.assert_allclose(average[name], mean, rtol=1e-6)
    assert int(optax.tree.get(opt_state, "num_averaged")) == len(chosen)


def test_a_single_average_is_the_parameters_bit_by_bit():
    visited, opt_state = trajectory(optimizer(after_every(2, 2)), 7)
    jax.tree.map(np.testing.assert_array_equal, averaged_params(opt_state, visited[-1]), visited[5])


def test_updates_are_left_alone():
    averaged, _ = trajectory(optimizer(after_every(2, 1)), 5)
    plain, _ = trajectory(optimizer(), 5)
    jax.tree.map(np.testing.assert_array_equal, averaged, plain)


def test_average_is_found_inside_other_transformations():
    nested = optax.chain(optax.identity(), optax.chain(optax.sgd(0.1), after_every(1)))
    visited, opt_state = trajectory(nested, 3)
    expected = np.mean([params["w"] for params in visited], axis=0)
    np.testing.assert_allclose(averaged_params(opt_state, visited[-1])["w"], expected, rtol=1e-6)


def test_state_can_be_donated_with_the_parameters():
    transformation = optimizer(after_every(1))
    state: Any = jax.jit(lambda params: (params, transformation.init(params)))(initial_params())
    double = jax.jit(lambda state: jax.tree.map(lambda x: 2 * x, state), donate_argnums=0)
    doubled = double(state)
    np.testing.assert_array_equal(doubled[1][-1].average["w"], doubled[0]["w"])
    params = initial_params()
    double((params, transformation.init(params)))


def test_what_cannot_be_averaged_is_refused():
    params = initial_params()
    transformation = after_every(1)
    with pytest.raises(ValueError, match="params must be given, got None"):
        transformation.update(params, transformation.init(params))
    with pytest.raises(ValueError, match="must hold a WeightAverageState"):
        averaged_params(optax.sgd(0.1).init(params), params)
    with pytest.raises(ValueError, match="first_epoch must be at least 0, got -1"):
        weight_average(-1, num_images=1, batch_size=1)
    with pytest.raises(ValueError, match="num_images must be at least 1, got 0"):
        weight_average(0, num_images=0, batch_size=1)


def test_state_is_a_named_tuple_of_count_number_and_average():
    state = after_every(1).init(initial_params())
    assert isinstance(state, WeightAverageState)
    assert state._fields == ("count", "num_averaged", "average")


class TwoNorms(nn.Module):
    """The second norm's input depends on the first one's batch statistics."""

    @nn.compact
    def __call__(self, images, *, train):
        x = BatchNorm(use_running_average=not train, name="first")(images)
        x = nn.Dense(4, name="dense")(jnp.tanh(x))
        return BatchNorm(use_running_average=not train, name="second")(x)


def image_batches():
    rng = np.random.default_rng(0)
    return [rng.normal(size * 0.1, 2, (size, 4, 4, 3)).astype(np.float32) for size in (8, 8, 5)]


def test_statistics_are_means_over_training_mode_batches():
    batches, model = image_batches(), TwoNorms()
    variables = model.init(jax.random.key(0), batches[0], train=False)
    stats = jax.tree.map(lambda leaf: leaf + 7, variables["batch_stats"])
    found = recomputed_statistics(model, variables["params"], stats, iter(batches))
    kernel, bias = (np.float64(variables["params"]["dense"][name]) for name in ("kernel", "bias"))
    inputs: dict[str, list[np.ndarray]] = {"first": [], "second": []}
    for images in np.float64(batches[0]), np.float64(batches[1]), np.float64(batches[2]):
        rows = images.reshape(-1, 3)
        inputs["first"].append(rows)
        normalized = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
        inputs["second"].append(np.tanh(normalized) @ kernel + bias)
    for name, rows_of_batches in inputs.items():
        mean = np.mean([rows.mean(0) for rows in rows_of_batches], axis=0)
        var = np.mean([rows.var(0) for rows in rows_of_batches], axis=0)
        np.testing.assert_allclose(found[name]["mean"], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[name]["var"], var, rtol=1e-4)


def test_statistics_of_a_network_have_the_structure_of_its_own():
    images = image_batches()[0]
    model = CifarResNet(num_classes=3, blocks=(1,), widths=(4,))
    variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))
    found = recomputed_statistics(
        model, variables["params"], variables["batch_stats"], [images, images]
    )
    shapes = jax.tree.map(jnp.shape, variables["batch_stats"])
    assert jax.tree.map(jnp.shape, found) == shapes
    # One batch twice: what a pass with momentum 0.9 adds 0.1 of.
    _, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
    jax.tree.map(
        lambda new, old, mean: np.testing.assert_allclose(
            new, 0.9 * old + 0.1 * mean, rtol=1e-5, atol=1e-6
        ),
        updated["batch_stats"],
        variables["batch_stats"],
        found,
    )


def test_networks_without_batch_norm_need_no_pass():
    def unread():
        raise AssertionError("no batch may be read")
        yield

    assert recomputed_statistics(MLP(num_classes=3), {}, {}, unread()) == {}


def test_statistics_of_no_batch_are_refused():
    stats = {"first": {"mean": jnp.zeros(3)}}
    with pytest.raises(ValueError, match="at least one batch"):
        recomputed_statistics(TwoNorms(), {}, stats, [])
