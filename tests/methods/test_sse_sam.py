"""SSE-SAM: its second stage, and batches that lack a group."""

import jax
import jax.numpy as jnp
import pytest
from lanes import soak_but
from small_problems import (
    METHODS,
    NUM_BATCHES,
    NUM_CLASSES,
    assert_close,
    batch,
    first_update,
    initial_params,
    logits,
    update,
)

import jaxlt

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(
    "second_stage",
    [{"head_rho": 0.0}, {"head_rho": 0}, {"head_rho": lambda step: 0.0}, {"switch_step": 0}],
    ids=["number", "integer", "schedule", "switch_step"],
)
@pytest.mark.parametrize("index", soak_but([2], range(NUM_BATCHES)))
def test_sse_sam_without_head_radius_is_imb_sam(second_stage, index):
    ours, state = first_update(METHODS["sse_sam"](**second_stage), *batch(index))
    theirs, tail = first_update(METHODS["imb_sam"](), *batch(index))
    assert_close(ours, theirs, 1e-14)
    assert_close(state.perturbation_norm[-1], tail.perturbation_norm[0], 1e-7)


def test_sse_sam_switches_at_its_step():
    params, (x, y) = initial_params(), batch(2)
    tx = METHODS["sse_sam"](switch_step=2)
    expected = [METHODS["sse_sam"]()] * 2 + [METHODS["imb_sam"]()] * 2
    state = tx.init(params)
    for stage in expected:
        gradient, state = update(tx, state, params, x, y)
        assert_close(gradient, first_update(stage, x, y)[0], 1e-14)


def test_sse_sam_without_head_image_perturbs_the_tail_alone():
    tx, params, (x, y) = METHODS["sse_sam"](), initial_params(), batch(2)
    y = jnp.full(16, 4)
    gradient, state = update(tx, tx.init(params), params, x, y)
    assert state.perturbation_norm[0] == state.sharpness[0] == 0
    assert_close(gradient, first_update(jaxlt.sam(0.1), x, y)[0], 1e-12)


def test_sse_sam_does_not_perturb_a_head_without_gradient():
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
