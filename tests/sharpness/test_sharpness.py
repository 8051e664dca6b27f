"""The one equation: laws that hold for every mix of groups, masks, precision and cost."""

import functools
from typing import Any

import brute_force
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_problems import (
    CLASSIFIER,
    COUNTS,
    NUM_CLASSES,
    PARAMETERS,
    assert_close,
    batch,
    class_losses_fn_of,
    initial_params,
    is_classifier,
    plain_gradient,
    quick,
)

import jaxlt
from jaxlt.sharpness.class_wise import class_wise_gradient
from jaxlt.sharpness.equation import Objective, sharpness_aware_gradient
from jaxlt.sharpness.perturbation import PerturbationRule, norm, resolve_mask

weight = st.sampled_from([0.0, 0.01, 0.3, 1.0, 2.5])
labels = arrays(np.int64, 16, elements=st.integers(0, NUM_CLASSES - 1))
MASKED: dict[str, Any] = {"mask": is_classifier}
RULE = PerturbationRule()
modes = st.sampled_from(
    [
        {},
        {"adaptive": True, "per_leaf": True},
        {"per_leaf": True, **MASKED},
        {"adaptive": True, **MASKED},
    ]
)


@st.composite
def mixes(draw, num_groups=2):
    """Arbitrary (clean, groups, mix, rho) of the one equation."""
    clean = draw(arrays(np.float64, NUM_CLASSES, elements=weight))
    groups = draw(arrays(np.float64, (num_groups, NUM_CLASSES), elements=weight))
    mix, rho = (draw(arrays(np.float64, num_groups, elements=weight)) for _ in range(2))
    return clean, groups, mix, rho


@functools.partial(jax.jit, static_argnames=("adaptive", "per_leaf", "mask"))
def engine_given(gradient, loss_scale, params, x, y, mix, *, mask=None, **rule):
    clean, groups, mix, rho = mix

    def class_losses_fn(p):
        losses = class_losses_fn_of(x, y)(p)
        return jaxlt.ClassLosses(loss_scale * losses.sums, losses.counts)

    rule = PerturbationRule(**rule)
    objective = Objective(clean, groups, mix)
    return sharpness_aware_gradient(
        class_losses_fn, params, gradient, lambda counts: objective, rho, rule=rule, mask=mask
    )


engine = functools.partial(engine_given, None, 1.0)


@pytest.mark.usefixtures("x64")
class TestLaws:
    @quick
    @given(mixes(), labels, modes)
    def test_any_mix_of_groups_equals_brute_force(self, mix, y, mode):
        params, (x, _) = initial_params(), batch(2)
        result = engine(params, x, y, mix, **mode)
        clean, groups, weights, rho = mix
        terms = brute_force.Terms(
            clean[y],
            [
                brute_force.Group(a[y], m, brute_force.fixed(r))
                for a, m, r in zip(groups, weights, rho, strict=True)
            ],
        )
        expected = brute_force.one_equation(
            params,
            x,
            y,
            terms,
            scope=CLASSIFIER if "mask" in mode else None,
            adaptive=mode.get("adaptive", False),
            per_leaf=mode.get("per_leaf", False),
        )
        assert_close(result.gradient, expected.gradient, 1e-12)
        np.testing.assert_allclose(result.perturbation_norm, expected.perturbation_norms, 1e-12)
        np.testing.assert_allclose(result.sharpness, expected.sharpness, 0, 1e-11)

    @quick
    @given(mixes(), labels, modes, st.permutations(range(16)))
    def test_order_of_the_batch_does_not_matter(self, mix, y, mode, order):
        params, (x, _) = initial_params(), batch(2)
        order = np.array(order)
        expected = engine(params, x, y, mix, **mode)
        assert_close(engine(params, x[order], y[order], mix, **mode), expected, 1e-12)

    @quick
    @given(mixes(), labels, modes, arrays(np.float64, (2, NUM_CLASSES), elements=weight))
    def test_weights_of_absent_classes_do_not_matter(self, mix, y, mode, other):
        params, (x, _) = initial_params(), batch(2)
        clean, groups, *rest = mix
        present = np.isin(np.arange(NUM_CLASSES), y)
        changed = np.where(present, clean, 7.0), np.where(present, groups, other), *rest
        expected = engine(params, x, y, mix, **mode)
        assert_close(engine(params, x, y, changed, **mode), expected, 1e-14)

    @quick
    @given(mixes(), labels, modes, st.floats(1e-6, 1e6))
    def test_scaling_the_loss_does_not_turn_the_perturbation(self, mix, y, mode, scale):
        params, (x, _) = initial_params(), batch(2)
        expected = engine(params, x, y, mix, **mode)
        scaled = engine_given(None, scale, params, x, y, mix, **mode)
        unscaled = jax.tree.map(lambda leaf: leaf / scale, scaled.gradient)
        assert_close(unscaled, expected.gradient, 1e-12)
        assert_close(scaled.perturbation_norm, expected.perturbation_norm, 1e-12)

    @quick
    @given(mixes(), labels, st.booleans())
    def test_gradient_of_the_mean_stands_for_one_part(self, mix, y, has_clean):
        params, (x, _) = initial_params(), batch(2)
        _, groups, *rest = mix
        if has_clean:
            clean = 1 / 16 - groups.sum(axis=0)
        else:
            clean, groups = None, np.stack([groups[0], 1 / 16 - groups[0]])
        mean = plain_gradient(params, x, y)
        given_mean = engine_given(mean, 1.0, params, x, y, (clean, groups, *rest))
        alone = engine(params, x, y, (clean, groups, *rest))
        assert_close(given_mean, alone, 1e-11)


@pytest.mark.usefixtures("x64")
def test_group_without_gradient_adds_its_plain_gradient():
    params, (x, y) = initial_params(), batch(0)
    absent = [c for c in range(NUM_CLASSES) if c not in y]
    groups = np.zeros((1, NUM_CLASSES))
    groups[0, absent] = 1.0
    mix = np.full(NUM_CLASSES, 1 / 16), groups, np.ones(1), np.ones(1)
    result = engine(params, x, y, mix)
    assert_close(result.gradient, plain_gradient(params, x, y), 1e-14)
    assert result.perturbation_norm == result.sharpness == 0


@pytest.mark.parametrize("class_wise", [False, True])
def test_float32_norms_under_16_bit_compute(class_wise):
    """A sum of 20,000 squares of 1/16 stalls in bfloat16; the parameters stay 32-bit."""
    size = 20_000

    def class_losses_fn(params):
        short = params["w"].astype(jnp.bfloat16)
        loss = (short * jnp.bfloat16(0.0625)).astype(jnp.float32).sum()
        return jaxlt.ClassLosses(loss[None], jnp.ones(1))

    params, rho = {"w": jnp.zeros(size, jnp.float32)}, jnp.asarray([3.0])
    if class_wise:
        objective = Objective(None, jnp.ones(1), jnp.ones(1))
        result = class_wise_gradient(
            class_losses_fn, params, lambda counts: objective, rho, rule=RULE
        )
    else:
        objective = Objective(None, jnp.ones((1, 1)), jnp.ones(1))
        result = sharpness_aware_gradient(
            class_losses_fn, params, None, lambda counts: objective, rho, rule=RULE
        )
    assert result.gradient["w"].dtype == jnp.float32
    np.testing.assert_allclose(result.perturbation_norm, 3.0, rtol=1e-5)


def test_mix_of_16_bit_parameters_keeps_its_32_bits():
    """Rounded to bfloat16 first, the mix would be 1."""
    params, mix = {"w": jnp.ones(4, jnp.bfloat16)}, 1 + 1 / 256
    objective = Objective(None, jnp.ones((1, 1)), jnp.asarray([mix]))

    def class_losses_fn(params):
        return jaxlt.ClassLosses(1.5 * params["w"].astype(jnp.float32).sum()[None], jnp.ones(1))

    result = sharpness_aware_gradient(
        class_losses_fn, params, None, lambda counts: objective, jnp.asarray([0.1]), rule=RULE
    )
    assert jnp.bfloat16(1.5 * mix) != 1.5
    np.testing.assert_array_equal(result.gradient["w"], jnp.full(4, 1.5 * mix, jnp.bfloat16))


@pytest.mark.parametrize("key", [None, 0])
def test_adaptive_perturbation_of_16_bit_parameters(key):
    drawn = None if key is None else jax.random.key(key)
    rule = PerturbationRule(adaptive=True, random_key=drawn)
    theta, gradient = jnp.asarray([[1.0, -4.0], [0.5, 2.0]]).astype(jnp.bfloat16)
    (eps,) = rule.perturbation([gradient], [theta], jnp.asarray(0.1), 0)
    assert eps.dtype == jnp.bfloat16
    np.testing.assert_allclose(norm(eps / jnp.abs(theta)), 0.1, rtol=1e-2)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_norm_accumulates_in_32_bits(dtype):
    leaves = {"a": jnp.full(30_000, 0.5, dtype), "b": jnp.full(10_000, 300.0, dtype)}
    expected = np.sqrt(30_000 * 0.25 + 10_000 * 90_000.0)
    assert norm(leaves).dtype == jnp.float32
    np.testing.assert_allclose(norm(leaves), expected, rtol=1e-6)


NESTED = {"trunk": {"w": np.ones(2), "b": np.ones(1)}, "head": np.ones(3)}


class TestMask:
    @pytest.mark.parametrize(
        ("mask", "chosen"),
        [
            (None, [True, True, True]),
            (True, [True, True, True]),
            ({"trunk": False, "head": True}, [True, False, False]),
            ({"trunk": {"w": True, "b": False}, "head": False}, [False, False, True]),
            (lambda params: {name: name == "trunk" for name in params}, [False, True, True]),
        ],
    )
    def test_is_a_prefix_or_a_callable(self, mask, chosen):
        assert resolve_mask(NESTED, mask) == chosen

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (False, "mask must select at least one leaf of params, got False for every leaf"),
            (lambda params: jax.tree.map(lambda _: False, params), "mask must select at least one"),
            ({"head": True}, "mask must be a prefix of the params pytree, got .*'head'.*'trunk'"),
            ([True, False], "mask must be a prefix of the params pytree, got"),
            ({"trunk": 1.0, "head": True}, "mask must hold bools, got float"),
        ],
    )
    def test_error_names_the_mask(self, mask, message):
        with pytest.raises(ValueError, match=f"^{message}"):
            resolve_mask(NESTED, mask)

    @pytest.mark.parametrize("mask", [{name: name in CLASSIFIER for name in PARAMETERS}, None])
    def test_leaves_outside_are_not_perturbed(self, mask):
        """Of what class_losses_fn is called with, seen from outside the differentiation."""
        params, (x, y) = initial_params(), batch(2)
        seen = []

        def class_losses_fn(p):
            jax.debug.callback(lambda q: seen.append(q), p)
            return class_losses_fn_of(x, y)(p)

        objective = Objective(None, jnp.full((1, NUM_CLASSES), 1 / 16), jnp.ones(1))
        result = sharpness_aware_gradient(
            class_losses_fn,
            params,
            None,
            lambda counts: objective,
            jnp.asarray([0.1]),
            rule=RULE,
            mask=mask,
        )
        jax.block_until_ready(result)
        jax.effects_barrier()
        moved = {name for name in params for p in seen if not np.array_equal(p[name], params[name])}
        assert moved == (set(CLASSIFIER) if mask else set(params))


@functools.cache
def wide_trunk():
    """Parameters and losses of an MLP with a wide trunk and fifty classes."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "trunk1": jax.random.normal(keys[0], (512, 1024)),
        "trunk2": jax.random.normal(keys[1], (1024, 32)),
        "head": jax.random.normal(keys[2], (32, 50)),
    }
    x, y = jax.random.normal(keys[3], (64, 512)), jnp.arange(64) % 50

    def class_losses_fn(p):
        z = jnp.tanh(jnp.tanh(x @ p["trunk1"]) @ p["trunk2"]) @ p["head"]
        return jaxlt.class_losses(jaxlt.losses.cross_entropy(z, y), y, 50)

    return params, class_losses_fn


def flops(tx):
    params, class_losses_fn = wide_trunk()

    def step(params, state):
        gradient = jax.grad(lambda p: class_losses_fn(p).mean())(params)
        updates, state = tx.update(gradient, state, params, class_losses_fn=class_losses_fn)
        return optax.apply_updates(params, updates), state

    analysis: Any = jax.jit(step).lower(params, tx.init(params)).compile().cost_analysis()
    return analysis["flops"]


@functools.cache
def flops_of_sgd():
    return flops(optax.with_extra_args_support(optax.sgd(0.1)))


FIFTY = tuple(range(1, 51))
CLASSIFIER_ONLY = {"trunk1": False, "trunk2": False, "head": True}


@pytest.mark.parametrize(
    ("tx", "bound"),
    [
        (lambda: jaxlt.cc_sam(FIFTY, mask=CLASSIFIER_ONLY), 1.5),
        (lambda: jaxlt.cc_sam(FIFTY, mask=CLASSIFIER_ONLY, flat_ratio=0.5), 1.5),
        (lambda: jaxlt.sam(0.1), 2.07),
        (lambda: jaxlt.imb_sam(FIFTY, 0.1, tail_threshold=20), 2.75),
        (lambda: jaxlt.focal_sam(FIFTY, 0.1, sharpness_weight=0.8, gamma=2.0), 2.75),
        (lambda: jaxlt.sse_sam(FIFTY, 0.1, 0.1, tail_threshold=20), 3.75),
        (lambda: jaxlt.sse_sam(FIFTY, 0.0, 0.1, tail_threshold=20), 2.75),
    ],
    ids=["cc_sam", "cc_sam mixed", "sam", "imb_sam", "focal_sam", "sse_sam", "sse_sam stage two"],
)
def test_cost_in_flops_of_sgd(tx, bound):
    """A backward pass counts for two forward ones; the trunk of CC-SAM runs once."""
    assert flops(optax.chain(tx(), optax.sgd(0.1))) < bound * flops_of_sgd()


def test_counts_reach_the_objective():
    x, y = batch(0)
    seen = []

    def objective_fn(counts):
        seen.append(np.asarray(counts))
        return Objective(None, jnp.ones((1, len(COUNTS))), jnp.ones(1))

    sharpness_aware_gradient(
        class_losses_fn_of(x, y), initial_params(), None, objective_fn, jnp.ones(1), rule=RULE
    )
    np.testing.assert_array_equal(seen[0], np.bincount(y, minlength=NUM_CLASSES))
