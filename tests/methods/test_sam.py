"""SAM against that of optax."""

from typing import Any

import jax
import optax
import pytest
from small_problems import (
    NUM_BATCHES,
    assert_close,
    batch,
    initial_params,
    largest_difference,
    plain_gradient,
    update,
)

import jaxlt

pytestmark = pytest.mark.usefixtures("x64")


def test_sam_is_that_of_optax():
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
