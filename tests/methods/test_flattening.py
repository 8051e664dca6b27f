"""The gradient-norm penalty and random perturbations of the whole model."""

from typing import Any

import brute_force
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_problems import (
    CLASSIFIER,
    COUNTS,
    PARAMETERS,
    assert_close,
    batch,
    changed_update,
    class_losses_fn_of,
    compiled,
    first_update,
    initial_params,
    is_classifier,
    largest_difference,
    plain_gradient,
    update,
)

import jaxlt

pytestmark = pytest.mark.usefixtures("x64")
# `optax.inject_hyperparams` takes a callable for a schedule.
MASK = {name: name in CLASSIFIER for name in PARAMETERS}
SCOPES = {"all": (None, None), "classifier": (is_classifier, CLASSIFIER)}


class TestGradientNormPenalty:
    @pytest.mark.parametrize("scope", SCOPES)
    def test_is_the_gradient_of_the_penalized_loss_as_rho_vanishes(self, scope):
        """The error of the difference falls with rho, at first order."""
        (mask, leaves), params, (x, y) = SCOPES[scope], initial_params(), batch(2)

        def penalized(p):
            gradient = plain_gradient(p, x, y)
            squares = sum(jnp.square(gradient[k]).sum() for k in leaves or p)
            return class_losses_fn_of(x, y)(p).mean() + 0.3 * jnp.sqrt(squares)

        expected = jax.jit(jax.grad(penalized))(params)
        errors = []
        for rho in (1e-3, 1e-4, 1e-5):
            gradient, _ = first_update(jaxlt.gradient_norm_penalty(0.3, rho, mask=mask), x, y)
            errors.append(largest_difference(gradient, expected))
        assert errors[0] < 1e-2
        np.testing.assert_allclose(errors[1:], [errors[0] / 10, errors[0] / 100], rtol=0.1)
        assert largest_difference(expected, plain_gradient(params, x, y)) > 0.01

    @pytest.mark.parametrize("options", [{}, {"adaptive": True}, {"mask": is_classifier}])
    @pytest.mark.parametrize("penalty", [0.0, 0.02, 0.1, 0.25])
    def test_mixes_two_gradients(self, penalty, options):
        """At rho 0.1; the ratio may exceed 1."""
        params, (x, y), share = initial_params(), batch(2), penalty / 0.1
        gradient, state = first_update(jaxlt.gradient_norm_penalty(penalty, 0.1, **options), x, y)
        moved = brute_force.one_equation(
            params,
            x,
            y,
            brute_force.sam(y, 0.1),
            scope=CLASSIFIER if "mask" in options else None,
            adaptive="adaptive" in options,
        )
        plain = plain_gradient(params, x, y)
        expected = {k: (1 - share) * plain[k] + share * moved.gradient[k] for k in params}
        assert_close(gradient, expected, 1e-12)
        np.testing.assert_allclose(state.perturbation_norm, moved.perturbation_norms, rtol=1e-6)
        np.testing.assert_allclose(state.sharpness, moved.sharpness, rtol=1e-6)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((-0.1, 0.1), "penalty must be at least 0 and finite, got -0.1"),
            ((0.1, 0.0), "rho must be positive and finite, got 0.0"),
            ((0.1, lambda step: 0 * step), "rho must be positive and finite, got 0"),
            ((0.1, -0.1), "rho must be positive and finite, got -0.1"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=f"^{message}"):
            jaxlt.gradient_norm_penalty(*arguments)


def quadratic(params):
    """One class that loses `||w||^2 / 2`, whose gradient at w + eps tells eps."""
    square = sum((jnp.square(w).sum() for w in jax.tree.leaves(params)), jnp.zeros(1))
    return jaxlt.ClassLosses(square / 2, jnp.ones(1))


def directions(tx, params, steps):
    """eps of some steps at fixed parameters, one row a step."""

    def step(state, _):
        gradient = jax.tree.map(jnp.zeros_like, params)
        gradient, state = tx.update(gradient, state, params, class_losses_fn=quadratic)
        eps = jax.tree.map(jnp.subtract, gradient, params)
        return state, (jnp.concatenate([e.ravel() for e in jax.tree.leaves(eps)]), state[2])

    return jax.jit(lambda s: jax.lax.scan(step, s, length=steps)[1])(tx.init(params))


def two_leaves():
    return {"a": jnp.full((3, 2), 0.5), "b": jnp.arange(4.0)}


class TestRandomPerturbation:
    def test_is_isotropic_of_radius_rho(self):
        eps, norms = directions(jaxlt.random_perturbation(0.3, 7), two_leaves(), 4000)
        np.testing.assert_allclose(np.linalg.norm(eps, axis=1), 0.3, rtol=1e-12)
        np.testing.assert_allclose(norms, 0.3, rtol=1e-6)
        unit = eps / 0.3
        np.testing.assert_allclose(unit.mean(0), 0, atol=0.02)
        np.testing.assert_allclose(unit.T @ unit / len(unit), np.eye(10) / 10, atol=0.01)
        np.testing.assert_allclose((unit[1:] * unit[:-1]).sum(1).mean(), 0, atol=0.02)

    def test_repeats_itself_for_the_same_seed_alone(self):
        one, same, other = (
            directions(jaxlt.random_perturbation(0.3, seed), two_leaves(), 3)[0]
            for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(one, same)
        assert (np.abs(one - other).max(1) > 1e-3).all()

    def test_leaves_outside_the_mask_stay(self):
        tx = jaxlt.random_perturbation(0.3, 0, mask={"a": False, "b": True})
        eps, _ = directions(tx, two_leaves(), 2)
        assert (eps[:, :6] == 0).all()
        np.testing.assert_allclose(np.linalg.norm(eps[:, 6:], axis=1), 0.3, rtol=1e-12)

    def test_gradient_is_taken_at_the_perturbed_parameters(self):
        params, (x, y) = initial_params(), batch(2)
        tx = jaxlt.random_perturbation(0.2, 3)
        eps = changed_update(tx, quadratic, params)[0]
        moved = {k: eps[k] for k in params}  # w + eps
        gradient, state = first_update(tx, x, y)
        assert_close(gradient, plain_gradient(moved, x, y), 1e-12)
        change = [class_losses_fn_of(x, y)(p).mean() for p in (params, moved)]
        np.testing.assert_allclose(state.sharpness, [change[1] - change[0]], rtol=1e-5)

    def test_does_not_read_the_incoming_gradient(self):
        params, (x, y) = initial_params(), batch(2)
        tx = jaxlt.random_perturbation(0.2, 3)
        gradient, _ = tx.update(
            jax.tree.map(lambda w: jnp.full_like(w, jnp.nan), params),
            tx.init(params),
            params,
            class_losses_fn=class_losses_fn_of(x, y),
        )
        assert_close(gradient, first_update(tx, x, y)[0], 0)

    def test_negative_radius(self):
        with pytest.raises(ValueError, match=r"^rho must be at least 0 and finite, got -0.1"):
            jaxlt.random_perturbation(-0.1, 0)


METHODS = {
    "gradient_norm_penalty": (jaxlt.gradient_norm_penalty, {"penalty": 0.05, "rho": 0.1}),
    "random_perturbation": (jaxlt.random_perturbation, {"rho": 0.1, "seed": 5}),
    "cc_sam": (jaxlt.cc_sam, {"class_counts": COUNTS, "direction": "random", "mask": MASK}),
}


@pytest.mark.parametrize("name", METHODS)
class TestInjectHyperparams:
    def test_numbers_can_be_changed_in_the_state(self, name):
        factory, arguments = METHODS[name]
        radius = "radius_scale" if name == "cc_sam" else "rho"
        params, (x, y) = initial_params(), batch(2)
        tx: Any = optax.inject_hyperparams(factory)(**arguments | {radius: 0.1})
        step, state = compiled(tx, params), tx.init(params)
        expected, _ = first_update(factory(**arguments | {radius: 0.1}), x, y)
        assert_close(step(state, x, y)[0], expected, 1e-12)
        state.hyperparams[radius] = jnp.asarray(0.03)
        changed, _ = first_update(factory(**arguments | {radius: 0.03}), x, y)
        assert_close(step(state, x, y)[0], changed, 1e-12)
        assert largest_difference(expected, changed) > 1e-5

    def test_schedule(self, name):
        factory, arguments = METHODS[name]
        radius = "radius_scale" if name == "cc_sam" else "rho"
        params, (x, y) = initial_params(), batch(2)
        tx = factory(**arguments | {radius: lambda step: 0.01 + 0.02 * step})
        before = tx.init(params)._replace(count=jnp.ones([], jnp.int32))
        gradient, state = update(tx, before, params, x, y)
        fixed = factory(**arguments | {radius: 0.03})
        expected, after = update(fixed, before, params, x, y)
        assert_close(gradient, expected, 1e-7)
        assert_close(state.perturbation_norm, after.perturbation_norm, 1e-6)
