"""CC-SAM: its characteristic radius, exactly fitted classes, its own arguments."""

from typing import Any

import brute_force
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_problems import (
    METHODS,
    NUM_BATCHES,
    NUM_CLASSES,
    batch,
    changed_update,
    first_update,
    initial_params,
)

import jaxlt


def linear_losses(slopes):
    """Class c loses `w . slopes[c]`: its gradient is `slopes[c]` wherever w is."""
    return lambda params: jaxlt.ClassLosses(slopes @ params["w"], jnp.ones(len(slopes)))


@pytest.mark.usefixtures("x64")
class TestCharacteristicRadius:
    """Equation 9 of the CC-SAM paper where every quantity in it is known."""

    counts = (1001, 101, 2, 1)
    slopes = np.diag([1e-3, 0.1, 1.0, 30.0])[:, :, None].repeat(2, axis=2).reshape(4, 8)
    w = np.full(8, 0.75)

    def state(self, scale=1.0, **arguments):
        losses = linear_losses(jnp.asarray(scale * self.slopes))
        tx = jaxlt.cc_sam(self.counts, **{"max_relative_radius": None} | arguments)
        return changed_update(tx, losses, {"w": jnp.asarray(self.w)})[1]

    def formula(self, scale=1.0):
        gradient = np.linalg.norm(self.slopes, axis=1)
        spread = np.array([1000, 100, 1, 1])
        return scale * np.sqrt(np.linalg.norm(self.w) / (2 * gradient)) * (8 / spread) ** 0.25

    @pytest.mark.parametrize("grad_norm", ["global", "per_leaf"])
    def test_is_equation_9(self, grad_norm):
        state = self.state(radius_scale=0.3, grad_norm=grad_norm)
        np.testing.assert_allclose(state.perturbation_norm, self.formula(0.3), rtol=1e-5)
        steepest = self.formula(0.3) * np.linalg.norm(self.slopes, axis=1)
        np.testing.assert_allclose(state.sharpness, steepest, rtol=1e-4)

    @pytest.mark.parametrize("cap", [0.1, 0.5, 100.0])
    def test_is_capped_where_asked(self, cap):
        expected = np.minimum(self.formula(), cap * np.linalg.norm(self.w))
        state = self.state(max_relative_radius=cap)
        np.testing.assert_allclose(state.perturbation_norm, expected, rtol=1e-5)

    @pytest.mark.parametrize("grad_norm", ["global", "per_leaf"])
    def test_the_state_says_for_how_many_classes_the_bound_decides(self, grad_norm):
        relative = self.formula() / np.linalg.norm(self.w)
        for bound in (0.9 * relative.min(), 1.1 * np.median(relative), 1.1 * relative.max()):
            state = self.state(max_relative_radius=bound, grad_norm=grad_norm)
            np.testing.assert_allclose(state.bounded, (relative >= bound).mean())
        assert self.state().bounded == 0

    def test_it_is_bounded_unless_one_asks_for_the_bare_formula(self):
        losses = linear_losses(jnp.asarray(self.slopes))
        _, state = changed_update(jaxlt.cc_sam(self.counts), losses, {"w": jnp.asarray(self.w)})
        limit = 0.05 * np.linalg.norm(self.w)
        expected = np.minimum(self.formula(), limit)
        np.testing.assert_allclose(state.perturbation_norm, expected, rtol=1e-5)

    def test_cap_holds_for_all_leaves_together(self):
        tx = METHODS["cc_sam"](radius_scale=1.0, grad_norm="per_leaf", max_relative_radius=0.1)
        _, state = first_update(tx, *batch(2))
        bound = 0.1 * brute_force.euclidean(initial_params().values())
        np.testing.assert_allclose(state.perturbation_norm, bound, rtol=1e-5)

    @pytest.mark.parametrize("direction", ["gradient", "random"])
    def test_is_the_scale_alone_where_the_magnitude_is_constant(self, direction):
        state = self.state(radius_scale=0.3, magnitude="constant", direction=direction)
        np.testing.assert_allclose(state.perturbation_norm, np.full(4, 0.3), rtol=1e-6)
        capped = self.state(
            radius_scale=0.3, magnitude="constant", direction=direction, max_relative_radius=0.1
        )
        bound = 0.1 * np.linalg.norm(self.w)
        np.testing.assert_allclose(capped.perturbation_norm, np.full(4, bound), rtol=1e-6)

    def test_does_not_depend_on_the_direction(self):
        state = self.state(radius_scale=0.3, direction="random")
        np.testing.assert_allclose(state.perturbation_norm, self.formula(0.3), rtol=1e-5)

    @pytest.mark.parametrize("scale", [1e-4, 1e4])
    def test_falls_with_the_root_of_the_loss(self, scale):
        expected = self.formula() / np.sqrt(scale)
        np.testing.assert_allclose(self.state(scale).perturbation_norm, expected, rtol=1e-5)


class TestExactlyFittedClasses:
    @pytest.mark.parametrize(
        "arguments",
        [
            {"radius_scale": 1e-6, "max_relative_radius": None},
            {"radius_scale": 1e-6, "grad_norm": "per_leaf"},
            {"radius_scale": 1.0, "max_relative_radius": 0.05},
            {"radius_scale": 1.0, "max_relative_radius": 0.05, "grad_norm": "per_leaf"},
            {"radius_scale": 1e-3, "direction": "random"},
            {"radius_scale": 1e-3, "direction": "random", "magnitude": "constant"},
        ],
    )
    def test_cc_sam_trains_on_when_classes_are_fitted_exactly(self, arguments):
        """Steps so long that the softmax of whole classes saturates in float32."""
        x = jnp.concatenate([batch(i)[0] for i in range(NUM_BATCHES)])
        y = jnp.concatenate([batch(i)[1] for i in range(NUM_BATCHES)])
        x = x.at[:, :NUM_CLASSES].add(6 * jax.nn.one_hot(y, NUM_CLASSES))
        tx: Any = optax.chain(METHODS["cc_sam"](**arguments), optax.sgd(20.0))

        def class_losses_fn(p):
            return jaxlt.class_losses(
                jaxlt.losses.cross_entropy(x @ p["kernel"] + p["bias"][None], y), y, NUM_CLASSES
            )

        def step(carry, _):
            params, state = carry
            gradients = jax.jacobian(lambda p: class_losses_fn(p).sums)(params)
            vanished = [(g == 0).reshape(NUM_CLASSES, -1).all(1) for g in gradients.values()]
            mean = jax.grad(lambda p: class_losses_fn(p).mean())(params)
            updates, state = tx.update(mean, state, params, class_losses_fn=class_losses_fn)
            seen = vanished[0] & vanished[1], state[0], class_losses_fn(params).mean()
            return (optax.apply_updates(params, updates), state), seen

        params = {"kernel": jnp.full((8, NUM_CLASSES), 1e-2), "bias": jnp.zeros(NUM_CLASSES)}
        start = (params, tx.init(params))
        (params, _), (vanished, states, losses) = jax.lax.scan(step, start, length=300)
        for leaf in jax.tree.leaves((params, states, losses)):
            assert np.isfinite(leaf).all()
        assert vanished.any(axis=0).sum() >= 2, "the case this test is about did not occur"
        assert not vanished[0].any()
        assert (states.perturbation_norm[vanished] == 0).all()
        assert losses[-1] < losses[0]


class TestArguments:
    @pytest.mark.parametrize(
        ("argument", "value", "message"),
        [
            ("flat_ratio", 1.5, r"flat_ratio must lie in \[0, 1\], got 1.5"),
            ("grad_norm", "leaf", "grad_norm must be one of global, per_leaf, got 'leaf'"),
            ("class_weighting", None, "class_weighting must be one of sample, class, got None"),
            ("direction", "up", "direction must be one of gradient, random, got 'up'"),
            ("magnitude", 1, "magnitude must be one of characteristic, constant, got 1"),
        ],
    )
    def test_option_of_cc_sam(self, argument, value, message):
        with pytest.raises(ValueError, match=f"^{message}"):
            METHODS["cc_sam"](**{argument: value})

    @pytest.mark.parametrize("kind", [jnp.float32, np.float32, lambda ratio: lambda step: ratio])
    def test_flat_ratio_above_one_that_is_no_plain_number(self, kind):
        with pytest.raises(ValueError, match=r"^flat_ratio must lie in \[0, 1\], got 1.5"):
            METHODS["cc_sam"](flat_ratio=kind(1.5))
