"""Each method against brute force, against its limits, and against what its arguments promise."""

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
    METHODS,
    NUM_BATCHES,
    NUM_CLASSES,
    RADII,
    assert_close,
    batch,
    changed_update,
    class_losses_fn_of,
    first_update,
    initial_params,
    is_classifier,
    largest_difference,
    logits,
    plain_gradient,
    update,
)

import jaxlt

ADAPTIVE: dict[str, Any] = {"adaptive": True}
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
        lambda: METHODS["focal_sam"](sharpness=1.7, gamma=0.5, **ADAPTIVE),
        lambda y: brute_force.focal_sam(y, COUNTS, 0.2, 1.7, 0.5),
        ADAPTIVE,
    ),
    "cc_sam": (lambda: jaxlt.cc_sam(COUNTS), lambda y: brute_force.cc_sam(y, COUNTS), {}),
    "cc_sam mixed": (
        lambda: jaxlt.cc_sam(COUNTS, radius_scale=0.1, flat_ratio=0.3),
        lambda y: brute_force.cc_sam(y, COUNTS, 0.1, 0.3),
        {},
    ),
    "cc_sam class weighting": (
        lambda: jaxlt.cc_sam(COUNTS, radius_scale=0.1, class_weighting="class", **MASKED),
        lambda y: brute_force.cc_sam(y, COUNTS, 0.1, weighting="class"),
        MASKED,
    ),
    "cc_sam class weighting mixed": (
        lambda: jaxlt.cc_sam(COUNTS, radius_scale=0.1, flat_ratio=0.4, class_weighting="class"),
        lambda y: brute_force.cc_sam(y, COUNTS, 0.1, 0.4, weighting="class"),
        {},
    ),
    "cc_sam per leaf": (
        lambda: jaxlt.cc_sam(COUNTS, radius_scale=0.1, grad_norm="per_leaf"),
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
        lambda: jaxlt.cc_sam(COUNTS, radius_scale=0.1, magnitude="constant"),
        lambda y: brute_force.cc_sam(y, COUNTS, 0.1, magnitude="constant"),
        {},
    ),
    "cc_sam adaptive": (
        lambda: jaxlt.cc_sam(COUNTS, radius_scale=0.1, **ADAPTIVE),
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
    @pytest.mark.parametrize("name", VARIANTS)
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


@pytest.mark.usefixtures("x64")
class TestLimits:
    def test_sam_is_that_of_optax(self):
        """Twenty steps with momentum."""
        normalized_ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.1))
        theirs: Any = optax.contrib.sam(
            optax.sgd(0.1, momentum=0.9), normalized_ascent, opaque_mode=True
        )
        ours = optax.chain(jaxlt.sam(0.1), optax.sgd(0.1, momentum=0.9))

        @jax.jit
        def step(both, states, x, y):
            (p, q), (s, t) = both, states
            d, s = update(ours, s, p, x, y)
            e, t = theirs.update(
                plain_gradient(q, x, y), t, q, grad_fn=lambda w, i: plain_gradient(w, x, y)
            )
            return (optax.apply_updates(p, d), optax.apply_updates(q, e)), (s, t)

        both = (initial_params(), initial_params())
        states = (ours.init(both[0]), theirs.init(both[1]))
        for index in range(20):
            both, states = step(both, states, *batch(index % NUM_BATCHES))
        assert largest_difference(both[0], initial_params()) > 0.1
        assert_close(both[0], both[1], 1e-14)

    @pytest.mark.parametrize(
        "second_stage",
        [{"head_rho": 0.0}, {"head_rho": 0}, {"head_rho": lambda step: 0.0}, {"switch_step": 0}],
        ids=["number", "integer", "schedule", "switch_step"],
    )
    @pytest.mark.parametrize("index", range(NUM_BATCHES))
    def test_sse_sam_without_head_radius_is_imb_sam(self, second_stage, index):
        ours, state = first_update(METHODS["sse_sam"](**second_stage), *batch(index))
        theirs, tail = first_update(METHODS["imb_sam"](), *batch(index))
        assert_close(ours, theirs, 1e-14)
        assert_close(state.perturbation_norm[-1], tail.perturbation_norm[0], 1e-7)

    def test_sse_sam_switches_at_its_step(self):
        params, (x, y) = initial_params(), batch(2)
        tx = METHODS["sse_sam"](switch_step=2)
        expected = [METHODS["sse_sam"]()] * 2 + [METHODS["imb_sam"]()] * 2
        state = tx.init(params)
        for stage in expected:
            gradient, state = update(tx, state, params, x, y)
            assert_close(gradient, first_update(stage, x, y)[0], 1e-14)

    @pytest.mark.parametrize(
        ("tx", "limit"),
        [
            (METHODS["focal_sam"](rho=0.1, sharpness=1.0, gamma=0.0), jaxlt.sam(0.1)),
            (METHODS["imb_sam"](tail_threshold=1000), jaxlt.sam(0.1)),
            (METHODS["imb_sam"](tail_threshold=1000, group_mean=True), jaxlt.sam(0.1)),
            (METHODS["focal_sam"](sharpness=0.0), optax.identity()),
            (METHODS["cc_sam"](flat_ratio=0.0), optax.identity()),
            (METHODS["cc_sam"](max_relative_radius=0.0), optax.identity()),
            *(
                (METHODS[name](**dict.fromkeys(radii, 0.0)), optax.identity())
                for name, radii in RADII.items()
            ),
        ],
    )
    def test_limit(self, tx, limit):
        for index in (0, 2):
            ours, _ = first_update(tx, *batch(index))
            limit = optax.with_extra_args_support(limit)
            assert_close(ours, first_update(limit, *batch(index))[0], 1e-14)

    def test_imb_sam_without_tail_image_is_plain(self):
        x, y = batch(0)
        y = jnp.where(y > 2, 0, y)
        gradient, state = first_update(METHODS["imb_sam"](), x, y)
        assert_close(gradient, plain_gradient(initial_params(), x, y), 1e-14)
        assert state.perturbation_norm == state.sharpness == 0

    def test_sse_sam_without_head_image_perturbs_the_tail_alone(self):
        tx, params, (x, y) = METHODS["sse_sam"](), initial_params(), batch(2)
        y = jnp.full(16, 4)
        gradient, state = update(tx, tx.init(params), params, x, y)
        assert state.perturbation_norm[0] == state.sharpness[0] == 0
        assert_close(gradient, first_update(jaxlt.sam(0.1), x, y)[0], 1e-12)

    def test_sse_sam_does_not_perturb_a_head_without_gradient(self):
        """Head images are there, fitted exactly; the caller's gradient is rounded otherwise."""
        params, (x, y) = initial_params(), batch(2)

        def class_losses_fn(p):
            fitted = 1e4 * jnp.where((y < 3)[:, None], jax.nn.one_hot(y, NUM_CLASSES), 0)
            per_example = jaxlt.losses.cross_entropy(logits(p, x) + fitted, y)
            return jaxlt.class_losses(per_example, y, NUM_CLASSES)

        mean = jax.grad(lambda p: class_losses_fn(p).mean())(params)
        rounded = jax.tree.map(lambda g: g * (1 + 1e-7), mean)
        tx = METHODS["sse_sam"]()
        state = tx.update(rounded, tx.init(params), params, class_losses_fn=class_losses_fn)[1]
        assert state.perturbation_norm[0] == 0

    @pytest.mark.parametrize(
        ("name", "changed"),
        [
            ("sam", {"rho": 0.2}),
            ("sam", {"adaptive": True}),
            ("sam", {"mask": is_classifier}),
            ("imb_sam", {"rho": 0.2}),
            ("imb_sam", {"tail_threshold": 30}),
            ("imb_sam", {"group_mean": True}),
            ("sse_sam", {"head_rho": 0.1}),
            ("sse_sam", {"tail_rho": 0.2}),
            ("sse_sam", {"tail_threshold": 30}),
            ("sse_sam", {"switch_step": 0}),
            ("focal_sam", {"rho": 0.1}),
            ("focal_sam", {"sharpness": 0.4}),
            ("focal_sam", {"gamma": 1.0}),
            ("focal_sam", {"class_counts": (4, 12, 25, 60, 120)}),
            ("cc_sam", {"radius_scale": 0.1}),
            ("cc_sam", {"flat_ratio": 1.0}),
            ("cc_sam", {"max_relative_radius": 0.001}),
            ("cc_sam", {"grad_norm": "per_leaf"}),
            ("cc_sam", {"class_weighting": "class"}),
            ("cc_sam", {"direction": "random"}),
            ("cc_sam", {"magnitude": "constant"}),
            ("cc_sam", {"class_counts": (4, 12, 25, 60, 120)}),
        ],
    )
    def test_every_argument_has_an_effect(self, name, changed):
        x, y = batch(2)
        one, other = (first_update(METHODS[name](**c), x, y)[0] for c in ({}, changed))
        assert largest_difference(one, other) > 1e-4


@pytest.mark.usefixtures("x64")
class TestVanishingGradients:
    @pytest.mark.parametrize("name", METHODS)
    def test_no_gradient_at_all(self, name):
        params, (x, y) = initial_params(), batch(2)

        def class_losses_fn(p):
            return jaxlt.class_losses(0 * (x @ p["dense1.kernel"]).sum(axis=1) + 1, y, NUM_CLASSES)

        gradient, state = changed_update(METHODS[name](), class_losses_fn, params)
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))
        assert (state.perturbation_norm == 0).all()

    @pytest.mark.parametrize("name", METHODS)
    def test_batch_of_nothing_but_padding(self, name):
        tx, params = METHODS[name](), initial_params()
        gradient, _ = update(tx, tx.init(params), params, batch(2)[0], jnp.full(16, -1))
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


class TestArguments:
    @pytest.mark.parametrize(
        ("name", "radius"), [(name, radius) for name, radii in RADII.items() for radius in radii]
    )
    @pytest.mark.parametrize(
        "negative", [-0.1, -1, jnp.float32(-0.5), float("nan"), lambda step: -0.25 + step]
    )
    def test_negative_radius(self, name, radius, negative):
        with pytest.raises(ValueError, match=f"^{radius} must be at least 0 and finite, got [-n]"):
            METHODS[name](**{radius: negative})

    @pytest.mark.parametrize(
        ("name", "argument"),
        [
            ("focal_sam", "sharpness"),
            ("focal_sam", "gamma"),
            ("cc_sam", "max_relative_radius"),
        ],
    )
    def test_other_negative_number(self, name, argument):
        with pytest.raises(ValueError, match=f"^{argument} must be at least 0 and .*, got -0.5"):
            METHODS[name](**{argument: -0.5})

    @pytest.mark.parametrize("name", [name for name in METHODS if name != "sam"])
    @pytest.mark.parametrize(
        ("class_counts", "message"),
        [
            ((), "class_counts must hold one count for each class, got \\(\\)"),
            ((5, 0), "class_counts must be positive numbers, got 0 for class 1"),
            (np.array([5, -3]), "class_counts must be positive numbers, got -3 for class 1"),
        ],
    )
    def test_bad_class_counts(self, name, class_counts, message):
        with pytest.raises(ValueError, match=f"^{message}"):
            METHODS[name](class_counts=class_counts)

    @pytest.mark.parametrize("name", [name for name in METHODS if name != "sam"])
    def test_class_counts_of_another_length_than_the_losses(self, name):
        message = (
            "^class_losses_fn must return losses of as many classes as class_counts holds, 4, got 5"
        )
        with pytest.raises(ValueError, match=message):
            first_update(METHODS[name](class_counts=(60, 25, 12, 4)), *batch(2))

    @pytest.mark.parametrize("name", ["imb_sam", "sse_sam"])
    def test_warns_where_no_class_is_tail(self, name):
        with pytest.warns(UserWarning, match="^tail_threshold 4 makes no class tail: .* 4 images"):
            METHODS[name](tail_threshold=4)

    @pytest.mark.parametrize("name", METHODS)
    def test_mask_that_does_not_fit(self, name):
        with pytest.raises(ValueError, match=r"^mask must select at least one leaf of params"):
            METHODS[name](mask=False).init(initial_params())
        with pytest.raises(ValueError, match=r"^mask must be a prefix of the params pytree"):
            METHODS[name](mask={"head": True}).init(initial_params())

    @pytest.mark.parametrize("name", METHODS)
    @pytest.mark.parametrize("result", ["array", "tuple"])
    def test_class_losses_fn_that_returns_something_else(self, name, result):
        params, (x, y) = initial_params(), batch(2)
        losses = class_losses_fn_of(x, y)
        wrong = {"array": lambda p: losses(p).sums, "tuple": lambda p: (losses(p), p)}
        tx = METHODS[name]()
        with pytest.raises(TypeError, match=r"^class_losses_fn must return jaxlt.ClassLosses"):
            tx.update(params, tx.init(params), params, class_losses_fn=wrong[result])
