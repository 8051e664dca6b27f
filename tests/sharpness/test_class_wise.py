"""The one equation with a group for each class: every way to compute it, against brute force."""

from typing import Any

import brute_force
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_problems import (
    CLASSIFIER,
    METHODS,
    NUM_CLASSES,
    assert_close,
    batch,
    class_losses_fn_of,
    factored,
    initial_params,
    is_classifier,
    quick,
)

import jaxlt
from jaxlt.sharpness.class_wise import class_wise_gradient
from jaxlt.sharpness.equation import Objective
from jaxlt.sharpness.perturbation import PerturbationRule

weight = st.sampled_from([0.0, 0.01, 0.3, 1.0, 2.5])
weights = arrays(np.float64, NUM_CLASSES, elements=weight)
labels = arrays(np.int64, 16, elements=st.integers(0, NUM_CLASSES - 1))
MASKED: dict[str, Any] = {"mask": is_classifier}
WAYS = {
    "vmap": (class_losses_fn_of, MASKED),
    "vmap adaptive": (class_losses_fn_of, {"adaptive": True, "per_leaf": True, **MASKED}),
    "one by one": (class_losses_fn_of, {}),
    "two by two": (class_losses_fn_of, {"chunk_size": 2, "adaptive": True}),
    "all in a chunk": (class_losses_fn_of, {"chunk_size": 7, "per_leaf": True, **MASKED}),
    "closed form": (factored, MASKED),
    "closed form per leaf": (factored, {"per_leaf": True, **MASKED}),
    "blocks": (lambda x, y: factored(x, y, jaxlt.Blocks((3, 1))), {"adaptive": True}),
    "block of all": (lambda x, y: factored(x, y, jaxlt.Blocks((40,))), {"per_leaf": True}),
}


def compile_way(way):
    losses_of, mode = WAYS[way]
    rule = PerturbationRule(
        adaptive=mode.get("adaptive", False), per_leaf=mode.get("per_leaf", False)
    )
    options = {name: mode[name] for name in ("mask", "chunk_size") if name in mode}

    @jax.jit
    def engine(params, x, y, clean, means, mix, rho):
        objective = Objective(clean, means, mix)
        return class_wise_gradient(
            losses_of(x, y), params, lambda counts: objective, rho, rule=rule, **options
        )

    return engine


@pytest.mark.usefixtures("x64")
class TestAnyObjective:
    @pytest.mark.parametrize("way", WAYS)
    def test_equals_brute_force(self, way):
        engine, (_, mode) = compile_way(way), WAYS[way]

        @quick
        @given(weights, weights, weights, weights, labels)
        def check(clean, means, mix, rho, y):
            params, (x, _) = initial_params(), batch(2)
            if "block" in way:
                # There the clean part comes from the gradients that the groups take at w.
                means = np.where(means == 0, 0.5, means)
            result = engine(params, x, y, clean, means, mix, rho)
            groups = [
                brute_force.Group(means[c] * (y == c), mix[c], brute_force.fixed(rho[c]))
                for c in range(NUM_CLASSES)
            ]
            expected = brute_force.one_equation(
                params,
                x,
                y,
                brute_force.Terms(clean[y], groups),
                scope=CLASSIFIER if "mask" in mode else None,
                adaptive=mode.get("adaptive", False),
                per_leaf=mode.get("per_leaf", False),
            )
            assert_close(result.gradient, expected.gradient, 1e-12)
            assert_close(result.perturbation_norm, np.array(expected.perturbation_norms), 1e-12)
            np.testing.assert_allclose(result.sharpness, expected.sharpness, 0, 1e-11)
            plain = class_losses_fn_of(x, y)(params).mean()
            np.testing.assert_allclose(result.loss, plain, rtol=1e-12)

        check()


class TestCost:
    @pytest.mark.parametrize(("present", "chunk_size", "calls"), [(1, 1, 1), (3, 1, 3), (3, 2, 4)])
    def test_a_class_that_is_absent_is_not_evaluated(self, present, chunk_size, calls):
        x, _ = batch(2)
        y, evaluations = jnp.arange(16) % present, []

        def class_losses_fn(params):
            jax.debug.callback(lambda _: evaluations.append(1), params["classifier.bias"])
            return class_losses_fn_of(x, y)(params)

        tx = METHODS["cc_sam"](chunk_size=chunk_size)
        params = initial_params()
        jax.block_until_ready(
            tx.update(params, tx.init(params), params, class_losses_fn=class_losses_fn)
        )
        jax.effects_barrier()
        # One at w, and one for each place in a chunk.
        assert len(evaluations) == 1 + calls

    def test_chunk_size_bounds_memory(self):
        params = {"w": jnp.zeros((64, 64)), "v": jnp.zeros((64, 50))}
        x, y = jnp.ones((50, 64)), jnp.arange(50)

        def class_losses_fn(p):
            return jaxlt.class_losses(
                jaxlt.losses.cross_entropy(jnp.tanh(x @ p["w"]) @ p["v"], y), y, 50
            )

        def memory(chunk_size):
            tx = jaxlt.cc_sam(range(1, 51), chunk_size=chunk_size)

            def step(params):
                return tx.update(params, tx.init(params), params, class_losses_fn=class_losses_fn)

            analysis: Any = jax.jit(step).lower(params).compile().memory_analysis()
            return analysis.temp_size_in_bytes

        size = 4 * sum(leaf.size for leaf in params.values())
        assert memory(50) > 50 * size
        assert memory(1) < 10 * size
        assert memory(5) < memory(50) / 3
