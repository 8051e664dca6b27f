"""Every method inside optax's combinators, in the places that the module's docstring allows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lanes import soak_but
from small_problems import (
    COUNTS,
    METHODS,
    RADII,
    assert_close,
    batch,
    compiled,
    first_update,
    initial_params,
    is_classifier,
    plain_gradient,
    update,
)

EACH_METHOD = pytest.mark.parametrize("name", soak_but({"focal_sam", "cc_sam"}, METHODS))
pytestmark = pytest.mark.usefixtures("x64")


@EACH_METHOD
def test_chain_after(name):
    """What follows acts on the sharpness-aware gradient: clipping, decay, step size."""
    params, (x, y) = initial_params(), batch(2)
    behind = optax.chain(
        optax.clip_by_global_norm(0.1), optax.add_decayed_weights(0.01), optax.sgd(0.1)
    )
    tx = optax.chain(METHODS[name](), behind)
    updates, _ = update(tx, tx.init(params), params, x, y)
    gradient, _ = first_update(METHODS[name](), x, y)
    assert optax.tree.norm(gradient) > 0.1
    expected, _ = behind.update(gradient, behind.init(params), params)
    assert_close(updates, expected, 1e-12)


@pytest.mark.parametrize(
    ("name", "factor_at_w"), [("sam", 0), ("cc_sam", 0), ("imb_sam", 2), ("focal_sam", 2)]
)
def test_chain_before_changes_what_is_taken_at_w(name, factor_at_w):
    """Gradients tripled before the method reach the result through its clean part alone."""
    x, y = batch(2)
    updates, _ = first_update(optax.chain(optax.scale(3.0), METHODS[name]()), x, y)
    gradient, _ = first_update(METHODS[name](), x, y)
    plain = plain_gradient(initial_params(), x, y)
    expected = jax.tree.map(lambda g, p: g + factor_at_w * p, gradient, plain)
    assert_close(updates, expected, 1e-12)


@EACH_METHOD
def test_apply_if_finite(name):
    params, (x, y) = initial_params(), batch(2)
    tx = optax.apply_if_finite(optax.chain(METHODS[name](), optax.sgd(1.0)), 3)
    step, state = compiled(tx, params), tx.init(params)
    updates, state = step(state, x.at[0, 0].set(jnp.nan), y)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates))
    assert state.total_notfinite == 1
    updates, state = step(state, x, y)
    descent = jax.tree.map(jnp.negative, first_update(METHODS[name](), x, y)[0])
    assert_close(updates, descent, 1e-12)
    assert optax.tree.get(state, "perturbation_norm").shape


@EACH_METHOD
class TestInjectHyperparams:
    def test_numbers_can_be_changed_in_the_state(self, name):
        params, (x, y) = initial_params(), batch(2)
        method, radius = METHODS[name], RADII[name][0]
        tx: Any = optax.inject_hyperparams(method.factory)(**method.arguments)
        step, state = compiled(tx, params), tx.init(params)
        assert_close(step(state, x, y)[0], first_update(method(), x, y)[0], 1e-12)
        state.hyperparams[radius] = jnp.asarray(0.03)
        changed, _ = first_update(method(**{radius: 0.03}), x, y)
        assert_close(step(state, x, y)[0], changed, 1e-12)

    def test_schedules(self, name):
        params, (x, y) = initial_params(), batch(2)
        method, radius = METHODS[name], RADII[name][0]
        schedule: Any = optax.linear_schedule(0.01, 0.07, 3)
        tx: Any = optax.inject_hyperparams(method.factory)(**method.arguments | {radius: schedule})
        state = tx.init(params)
        for index in range(3):
            gradient, state = update(tx, state, params, x, y)
            expected, _ = first_update(method(**{radius: float(schedule(index))}), x, y)
            assert_close(gradient, expected, 1e-7)

    def test_callable_mask_is_static(self, name):
        params, (x, y) = initial_params(), batch(2)
        method = METHODS[name]
        inject = optax.inject_hyperparams(method.factory, static_args="mask")
        tx = inject(**method.arguments, mask=is_classifier)
        gradient, _ = update(tx, tx.init(params), params, x, y)
        assert_close(gradient, first_update(method(mask=is_classifier), x, y)[0], 1e-12)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "sam"])
def test_inject_hyperparams_traces_an_array_of_class_counts(name):
    """Tuples, as in every other test here, stay static."""
    params, (x, y) = initial_params(), batch(2)
    method = METHODS[name]
    tx = optax.inject_hyperparams(method.factory)(
        **method.arguments | {"class_counts": np.array(COUNTS)}
    )
    gradient, _ = compiled(tx, params)(tx.init(params), x, y)
    assert_close(gradient, first_update(method(), x, y)[0], 1e-7)


@EACH_METHOD
def test_multi_steps_behind(name):
    """Two micro-batches: nothing moves after the first, their mean gradient after the second."""
    params = initial_params()
    accumulate = optax.MultiSteps(optax.sgd(1.0), 2).gradient_transformation()
    tx = optax.chain(METHODS[name](), optax.GradientTransformationExtraArgs(*accumulate))
    step, state = compiled(tx, params), tx.init(params)
    with jax.numpy_dtype_promotion("standard"):  # optax's own link mixes float32 and float64
        first, state = step(state, *batch(1))
        second, state = step(state, *batch(2))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(first))
    gradients = [first_update(METHODS[name](), *batch(index))[0] for index in (1, 2)]
    assert_close(second, jax.tree.map(lambda a, b: -(a + b) / 2, *gradients), 1e-7)


@EACH_METHOD
def test_masked_and_multi_transform_behind(name):
    params, (x, y) = initial_params(), batch(2)
    labels = {k: "fast" if chosen else "slow" for k, chosen in is_classifier(params).items()}
    tx = optax.chain(
        METHODS[name](),
        optax.masked(optax.add_decayed_weights(0.5), is_classifier),
        optax.multi_transform({"fast": optax.sgd(1.0), "slow": optax.sgd(0.1)}, labels),
    )
    updates, _ = update(tx, tx.init(params), params, x, y)
    gradient, _ = first_update(METHODS[name](), x, y)
    expected = {
        k: -(g + 0.5 * params[k]) if labels[k] == "fast" else -0.1 * g for k, g in gradient.items()
    }
    assert_close(updates, expected, 1e-12)
