"""Passes over the images of each group alone: exact, and no more images than needed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from lanes import soak_but
from small_problems import (
    COUNTS,
    METHODS,
    NUM_CLASSES,
    assert_close,
    batch,
    changed_update,
    factored,
    initial_params,
    is_classifier,
    plain_gradient,
    quick,
)

import jaxlt

labels = arrays(np.int64, 16, elements=st.integers(-1, NUM_CLASSES - 1))
DISJOINT = {
    "imb_sam": ("imb_sam", {}),
    "imb_sam group mean": ("imb_sam", {"group_mean": True, "adaptive": True}),
    "sse_sam": ("sse_sam", {}),
    "sse_sam masked": ("sse_sam", {"mask": is_classifier}),
    "sse_sam stage two": ("sse_sam", {"switch_step": 0, "mask": is_classifier}),
    "sse_sam either": ("sse_sam", {"switch_step": 3}),
    "cc_sam": ("cc_sam", {}),
    "cc_sam per leaf": ("cc_sam", {"grad_norm": "per_leaf", "flat_ratio": 1.0}),
}
PASSES = {
    "default": jaxlt.Blocks(),
    "even": jaxlt.Blocks((2,)),
    "larger than the batch": jaxlt.Blocks((40,)),
    # The smallest takes images of the next group too, which must not count.
    "three sizes": jaxlt.Blocks((5, 3, 2)),
    "capacity": jaxlt.Capacity(16),
}


def disjoint(name):
    method, changed = DISJOINT[name]
    return METHODS[method](**changed)


@pytest.mark.usefixtures("x64")
class TestExactness:
    @pytest.mark.parametrize(
        ("name", "passes"),
        soak_but(
            [*((name, "three sizes") for name in DISJOINT), ("imb_sam", "capacity")],
            [*((name, "three sizes") for name in DISJOINT), *(("imb_sam", way) for way in PASSES)],
        ),
    )
    def test_for_any_labels(self, name, passes):
        tx = disjoint(name)

        @jax.jit
        def ways(x, y):
            obj, params = factored(x, y, PASSES[passes]), initial_params()
            return changed_update(tx, obj, params), changed_update(tx, lambda p: obj(p), params)

        @quick
        @given(labels)
        def check(y):
            ours, theirs = ways(batch(2)[0], jnp.asarray(y))
            assert_close(ours[0], theirs[0], 1e-13)
            assert_close(ours[1], theirs[1], 1e-6)

        check()

    def test_without_tail_image(self):
        x, y = batch(0)
        y = jnp.where(y > 2, 0, y)
        obj = factored(x, y, jaxlt.Blocks())
        gradient, state = changed_update(METHODS["imb_sam"](), obj, initial_params())
        assert_close(gradient, plain_gradient(initial_params(), x, y), 1e-14)
        assert state.perturbation_norm == state.sharpness == 0


def counted(x, y, passes):
    """Losses whose features note how many images they are asked for."""
    seen = []
    plain = factored(x, y, passes)

    def features_fn(params, images):
        jax.debug.callback(lambda _: seen.append(len(images)), params["classifier.bias"])
        return plain.features_fn(params, images)

    return factored(x, y, passes, features_fn=features_fn), seen


class TestCost:
    y = np.array([0] * 7 + [1] * 3 + [3] * 4 + [4] * 2)  # six images of the tail

    def images_seen(self, tx, passes):
        obj, seen = counted(batch(2)[0], jnp.asarray(self.y), passes)
        params = initial_params()
        jax.block_until_ready(tx.update(params, tx.init(params), params, class_losses_fn=obj))
        jax.effects_barrier()
        return seen

    @pytest.mark.parametrize(
        ("name", "passes", "expected"),
        [
            # The tail at w and at w + eps.
            ("imb_sam", jaxlt.Blocks((4, 1)), 2 * 6),
            ("imb_sam", jaxlt.Blocks((4,)), 2 * 8),
            ("imb_sam", jaxlt.Capacity(6), 2 * 6),
            ("imb_sam", None, 16 + 16),
            ("sse_sam", jaxlt.Blocks((4, 1)), 2 * 16),
            ("sse_sam", jaxlt.Capacity(6), 3 * 16),
            ("sse_sam stage two", jaxlt.Blocks((4, 1)), 2 * 6),
            ("cc_sam", jaxlt.Blocks((4, 1)), 2 * 16),
            ("cc_sam", jaxlt.Capacity(6), 2 * (8 + 4 + 4 + 2)),
        ],
    )
    def test_images_evaluated(self, name, passes, expected):
        assert sum(self.images_seen(disjoint(name), passes)) == expected

    def test_a_switch_evaluates_one_stage(self):
        tx = METHODS["sse_sam"](switch_step=1)
        obj, seen = counted(batch(2)[0], jnp.asarray(self.y), jaxlt.Blocks((4, 1)))
        params = initial_params()
        state = tx.init(params)
        evaluated = []
        for _ in range(3):
            _, state = tx.update(params, state, params, class_losses_fn=obj)
            jax.block_until_ready(state)
            jax.effects_barrier()
            evaluated.append(sum(seen))
        assert np.diff([0, *evaluated]).tolist() == [2 * 16, 16 + 2 * 6, 16 + 2 * 6]


def test_more_images_than_the_capacity_are_no_silent_error():
    x, y = batch(2)
    tail = int((np.array(COUNTS)[np.asarray(y)] < 20).sum())
    for capacity, finite in ((tail - 1, False), (tail, True)):
        gradient, _ = changed_update(
            METHODS["imb_sam"](), factored(x, y, jaxlt.Capacity(capacity)), initial_params()
        )
        assert jnp.isfinite(gradient["dense1.kernel"]).all() == finite


def test_capacity_must_be_positive():
    with pytest.raises(ValueError, match=r"^Capacity\.images must be at least 1, got 0"):
        jaxlt.Capacity(0)


@pytest.mark.parametrize("sizes", [(), (0,), (1, 4), (2, 2)])
def test_sizes_of_blocks_must_descend(sizes):
    with pytest.raises(ValueError, match=r"^Blocks\.sizes must be positive and descending, got"):
        jaxlt.Blocks(sizes)
