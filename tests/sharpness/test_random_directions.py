"""CC-SAM along random directions: the directions themselves, and every way to compute them."""

import functools
import itertools
from typing import Any

import brute_force
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lanes import soak_but
from small_problems import (
    CLASSIFIER,
    COUNTS,
    NUM_CLASSES,
    PARAMETERS,
    assert_close,
    batch,
    changed_update,
    class_losses_fn_of,
    factored,
    initial_params,
    is_classifier,
)

import jaxlt

pytestmark = pytest.mark.usefixtures("x64")


@functools.cache
def compiled_perturbation(scope, seed):
    params = initial_params()
    mask = {name: name in scope for name in params}
    tx = jaxlt.cc_sam(COUNTS, direction="random", seed=seed, mask=mask)

    @jax.jit
    def perturbation(label, step):
        def class_losses_fn(params):
            square = sum(jnp.square(w).sum() for w in jax.tree.leaves(params)) / 2
            present = jax.nn.one_hot(label, NUM_CLASSES)
            return jaxlt.ClassLosses(present * square, present)

        state: Any = tx.init(params)
        state = state._replace(count=step)
        gradient: Any
        gradient, _ = tx.update(params, state, params, class_losses_fn=class_losses_fn)
        return {name: gradient[name] - params[name] for name in params}

    return perturbation


def unit_direction(label, scope, step=0, seed=0):
    """Direction of a class at a step: losses of `||w||^2 / 2` have gradient w + eps."""
    eps = compiled_perturbation(scope, seed)(jnp.asarray(label), jnp.asarray(step, jnp.int32))
    length = brute_force.euclidean(eps.values())
    return {name: np.asarray(e) / length for name, e in eps.items()}


def flat(direction):
    return np.concatenate([direction[name].ravel() for name in sorted(direction)])


@pytest.mark.parametrize("scope", [CLASSIFIER, PARAMETERS], ids=["classifier", "all"])
class TestDirections:
    def test_differ_by_class_step_and_seed(self, scope):
        kinds = [{}, {"label": 1}, {"step": 1}, {"seed": 1}, {"label": 1, "step": 1}]
        found = np.array([flat(unit_direction(**{"label": 0, "scope": scope} | k)) for k in kinds])
        cosines = np.abs(found @ found.T - np.eye(len(kinds)))
        assert cosines.max() < 0.6
        again = flat(unit_direction(0, scope))
        np.testing.assert_array_equal(again, found[0])

    def test_stay_inside_the_mask(self, scope):
        direction = unit_direction(2, scope)
        assert all((direction[name] != 0).all() == (name in scope) for name in direction)


WAYS = {
    "vmap": (class_losses_fn_of, CLASSIFIER, None),
    "vmap, factored": (factored, CLASSIFIER, None),
    "chunks of the classifier": (class_losses_fn_of, CLASSIFIER, 2),
    "one by one": (class_losses_fn_of, PARAMETERS, None),
    "two by two": (factored, PARAMETERS, 2),
    "blocks": (lambda x, y: factored(x, y, jaxlt.Blocks((3, 1))), PARAMETERS, None),
}
MAGNITUDES = ["characteristic", "constant"]


class TestEveryWay:
    @pytest.mark.parametrize(
        ("way", "magnitude"),
        soak_but(list(zip(WAYS, MAGNITUDES * 3, strict=True)), itertools.product(WAYS, MAGNITUDES)),
    )
    def test_equals_brute_force(self, way, magnitude):
        """Batch 0 lacks classes."""
        losses_of, scope, chunk_size = WAYS[way]
        params, (x, y) = initial_params(), batch(0)
        tx = jaxlt.cc_sam(
            COUNTS,
            radius_scale=0.2,
            max_relative_radius=None,
            flat_ratio=0.7,
            direction="random",
            magnitude=magnitude,
            seed=11,
            chunk_size=chunk_size,
            mask=is_classifier if scope == CLASSIFIER else None,
        )
        gradient, state = changed_update(tx, losses_of(x, y), params)

        terms = brute_force.cc_sam(y, COUNTS, 0.2, 0.7, magnitude=magnitude)
        radii = brute_force.one_equation(params, x, y, terms, scope=scope).perturbation_norms
        expected = brute_force.weighted_gradient(params, x, y, terms.clean)
        norms = np.zeros(NUM_CLASSES)
        labels = sorted(set(np.asarray(y).tolist()))
        for label, group, radius in zip(labels, terms.groups, radii, strict=True):
            unit = unit_direction(label, scope, seed=11)
            moved = {name: params[name] + radius * unit[name] for name in params}
            there = brute_force.weighted_gradient(moved, x, y, group.weights)
            expected = {name: g + group.mix * there[name] for name, g in expected.items()}
            norms[label] = radius
        assert len(labels) < NUM_CLASSES
        assert_close(gradient, expected, 1e-7)
        np.testing.assert_allclose(state.perturbation_norm, norms, rtol=1e-6)


@pytest.mark.parametrize("grad_norm", ["global", "per_leaf"])
def test_adaptive_scales_directions_by_the_weights(grad_norm):
    """A weight that is 0 does not move, and leaves that are all 0 break nothing."""
    params, (x, y) = initial_params(), batch(2)
    params["classifier.bias"] = jnp.zeros(NUM_CLASSES)
    tx = jaxlt.cc_sam(
        COUNTS, radius_scale=0.1, direction="random", adaptive=True, grad_norm=grad_norm
    )
    gradient, state = changed_update(tx, class_losses_fn_of(x, y), params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradient, state[:-1])))
    assert (state.perturbation_norm > 0).all()


def test_a_key_of_the_run_decides_with_the_seed():
    """Two runs of one compiled step perturb along directions of their own."""
    tx = jaxlt.random_perturbation(0.1, seed=3)
    params = {"w": jnp.ones(50)}

    def class_losses_fn(params):
        return jaxlt.class_losses(jnp.square(params["w"])[:2].sum()[None], jnp.array([0]), 2)

    def gradient_with(key):
        zero = jax.tree.map(jnp.zeros_like, params)
        extra = {} if key is None else {"key": jax.random.key(key)}
        gradient, _ = tx.update(
            zero, tx.init(params), params, class_losses_fn=class_losses_fn, **extra
        )
        return jax.tree.map(np.asarray, gradient)["w"]

    first, second, none = (gradient_with(key) for key in (0, 1, None))
    assert not np.allclose(first, second)
    assert not np.allclose(first, none)
    np.testing.assert_array_equal(first, gradient_with(0))
