"""Each method against brute force, in each of its variants."""

from typing import Any

import brute_force
import jax
import numpy as np
import pytest
from lanes import soak_but
from small_problems import (
    CLASSIFIER,
    COUNTS,
    METHODS,
    NUM_BATCHES,
    NUM_CLASSES,
    assert_close,
    batch,
    first_update,
    initial_params,
    is_classifier,
    update,
)

import jaxlt

ADAPTIVE: dict[str, Any] = {"adaptive": True}
BARE: dict[str, Any] = {"max_relative_radius": None}
MASKED: dict[str, Any] = {"mask": is_classifier}
# jaxlt's transformation, the terms of brute force, and the options of both.
VARIANTS = {
    "sam": (lambda: jaxlt.sam(0.1), lambda y: brute_force.sam(y, 0.1), {}),
    "asam": (lambda: jaxlt.sam(0.5, **ADAPTIVE), lambda y: brute_force.sam(y, 0.5), ADAPTIVE),
    "sam masked": (lambda: jaxlt.sam(0.1, **MASKED), lambda y: brute_force.sam(y, 0.1), MASKED),
    "imb_sam": (
        METHODS["imb_sam"],
        lambda y: brute_force.imb_sam(y, COUNTS, 0.1, 20),
        {},
    ),
    "imb_sam group_mean": (
        lambda: METHODS["imb_sam"](group_mean=True),
        lambda y: brute_force.imb_sam(y, COUNTS, 0.1, 20, group_mean=True),
        {},
    ),
    "imb_sam strict threshold": (
        lambda: jaxlt.imb_sam(COUNTS, 0.1, tail_threshold=25, **MASKED, **ADAPTIVE),
        lambda y: brute_force.imb_sam(y, COUNTS, 0.1, 25),
        MASKED | ADAPTIVE,
    ),
    "sse_sam": (
        METHODS["sse_sam"],
        lambda y: brute_force.sse_sam(y, COUNTS, 0.05, 0.1, 20),
        {},
    ),
    "sse_sam masked": (
        lambda: METHODS["sse_sam"](**MASKED),
        lambda y: brute_force.sse_sam(y, COUNTS, 0.05, 0.1, 20),
        MASKED,
    ),
    "focal_sam": (
        METHODS["focal_sam"],
        lambda y: brute_force.focal_sam(y, COUNTS, 0.2, 0.8, 3.2),
        {},
    ),
    "focal_sam adaptive": (
        lambda: METHODS["focal_sam"](sharpness_weight=1.7, gamma=0.5, **ADAPTIVE),
        lambda y: brute_force.focal_sam(y, COUNTS, 0.2, 1.7, 0.5),
        ADAPTIVE,
    ),
    "cc_sam": (lambda: jaxlt.cc_sam(COUNTS, **BARE), lambda y: brute_force.cc_sam(y, COUNTS), {}),
    "cc_sam mixed": (
        lambda: jaxlt.cc_sam(COUNTS, **BARE, radius_scale=0.1, flat_ratio=0.3),
        lambda y: brute_force.cc_sam(y, COUNTS, 0.1, 0.3),
        {},
    ),
    "cc_sam class weighting": (
        lambda: jaxlt.cc_sam(COUNTS, **BARE, radius_scale=0.1, class_weighting="class", **MASKED),
        lambda y: brute_force.cc_sam(y, COUNTS, 0.1, weighting="class"),
        MASKED,
    ),
    "cc_sam class weighting mixed": (
        lambda: jaxlt.cc_sam(
            COUNTS, **BARE, radius_scale=0.1, flat_ratio=0.4, class_weighting="class"
        ),
        lambda y: brute_force.cc_sam(y, COUNTS, 0.1, 0.4, weighting="class"),
        {},
    ),
    "cc_sam per leaf": (
        lambda: jaxlt.cc_sam(COUNTS, **BARE, radius_scale=0.1, grad_norm="per_leaf"),
        lambda y: brute_force.cc_sam(y, COUNTS, 0.1),
        {"per_leaf": True},
    ),
    "cc_sam capped": (
        lambda: jaxlt.cc_sam(COUNTS, max_relative_radius=0.2, **MASKED),
        lambda y: brute_force.cc_sam(y, COUNTS, cap=0.2),
        MASKED,
    ),
    "cc_sam per leaf capped": (
        lambda: jaxlt.cc_sam(COUNTS, max_relative_radius=0.2, grad_norm="per_leaf"),
        lambda y: brute_force.cc_sam(y, COUNTS, cap=0.2),
        {"per_leaf": True},
    ),
    "cc_sam direction only": (
        lambda: jaxlt.cc_sam(COUNTS, **BARE, radius_scale=0.1, magnitude="constant"),
        lambda y: brute_force.cc_sam(y, COUNTS, 0.1, magnitude="constant"),
        {},
    ),
    "cc_sam adaptive": (
        lambda: jaxlt.cc_sam(COUNTS, **BARE, radius_scale=0.1, **ADAPTIVE),
        lambda y: brute_force.cc_sam(y, COUNTS, 0.1),
        ADAPTIVE,
    ),
}


def brute_force_result(name, params, x, y):
    _, terms, options = VARIANTS[name]
    options = dict(options)
    scope = CLASSIFIER if options.pop("mask", None) else None
    return brute_force.one_equation(params, x, y, terms(y), scope=scope, **options)


def per_class(values, y, state):
    """Brute force knows the classes of the batch alone, `cc_sam` all of them."""
    if len(values) == len(state.perturbation_norm):
        return np.array(values)
    full = np.zeros(NUM_CLASSES)
    full[np.unique(y)] = values
    return full


@pytest.mark.usefixtures("x64")
class TestBruteForce:
    @pytest.mark.parametrize("name", soak_but(list(VARIANTS)[::2], VARIANTS))
    def test_gradient_norms_and_sharpness(self, name):
        tx, params = VARIANTS[name][0](), initial_params()
        for index in range(NUM_BATCHES):
            x, y = batch(index)
            gradient, state = update(tx, tx.init(params), params, x, y)
            expected = brute_force_result(name, params, x, y)
            assert_close(gradient, expected.gradient, 1e-12)
            norms = per_class(expected.perturbation_norms, y, state)
            np.testing.assert_allclose(state.perturbation_norm, norms, rtol=1e-6)
            sharpness = per_class(expected.sharpness, y, state)
            np.testing.assert_allclose(state.sharpness, sharpness, rtol=1e-6, atol=1e-12)

    @pytest.mark.parametrize("name", ["asam", "sse_sam", "focal_sam", "cc_sam", "cc_sam mixed"])
    def test_gradient_is_that_of_the_objective_with_eps_frozen(self, name):
        """By central differences, so that no gradient of JAX judges another one."""
        tx, params, (x, y) = VARIANTS[name][0](), initial_params(), batch(2)
        gradient, _ = first_update(tx, x, y)
        objective = jax.jit(brute_force_result(name, params, x, y).frozen_objective)
        rng = np.random.default_rng(0)
        for _ in range(5):
            direction = {k: rng.normal(size=w.shape) for k, w in params.items()}
            ahead, behind = (
                objective({k: params[k] + h * direction[k] for k in params}) for h in (1e-5, -1e-5)
            )
            slope = sum((gradient[k] * direction[k]).sum() for k in params)
            np.testing.assert_allclose((ahead - behind) / 2e-5, slope, rtol=1e-7)
