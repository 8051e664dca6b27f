from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlt.recipes.optimizer import (
    CosineAnnealing,
    CosineSteppedFirst,
    MultiStep,
    Optimizer,
    by_epoch,
)
from jaxlt.recipes.part import Clock
from jaxlt.recipes.schedule import CCSAMMultiStep, Constant

EPOCHS = 200


def table(schedule):
    value = schedule.build(0.1, EPOCHS)
    return np.array([float(value(jnp.asarray(float(epoch)))) for epoch in range(EPOCHS)])


def test_cosine_stepped_after_and_before_the_epoch():
    expected = 0.05 * (1 + np.cos(np.pi * np.arange(EPOCHS + 1) / EPOCHS))
    np.testing.assert_allclose(table(CosineAnnealing()), expected[:-1], atol=1e-8)
    first = table(CosineSteppedFirst())
    np.testing.assert_allclose(first, expected[1:], atol=1e-8)
    assert first[-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("factors", [(0.01, 0.0001), (0.1, 0.01)])
def test_multistep_warms_up_and_falls_after_160_and_180(factors):
    rates = table(MultiStep(factors=factors))
    np.testing.assert_allclose(rates[:6], [0.02, 0.04, 0.06, 0.08, 0.1, 0.1], rtol=1e-6)
    # The 160th epoch is number 159.
    np.testing.assert_allclose(rates[[159, 160]], [0.1, 0.1 * factors[0]], rtol=1e-6)
    np.testing.assert_allclose(rates[[179, 180]], [0.1 * factors[0], 0.1 * factors[1]], rtol=1e-6)


def test_cc_sam_multistep_has_the_values_of_the_released_schedule():
    rates = table(CCSAMMultiStep())
    np.testing.assert_allclose(
        rates[:5], [0.1 * (1 - t / 5) / 3 + 0.1 * t / 5 for t in (1, 2, 3, 4, 5)], rtol=1e-6
    )
    np.testing.assert_allclose(rates[:2], [0.0467, 0.06], atol=5e-5)
    np.testing.assert_allclose(rates[[158, 159, 178, 179]], [0.1, 0.01, 0.01, 0.001], rtol=1e-5)


@pytest.mark.parametrize("images", [10847, 12406, 115846])
def test_by_epoch_changes_at_the_first_step_of_an_epoch(images):
    batch_size = 64
    clock = Clock(images, batch_size, EPOCHS)
    schedule = by_epoch(lambda epoch: epoch, clock)
    for epoch in (1, 7, 160, 199):
        first = -(-epoch * images // batch_size)
        assert float(schedule(first)) == epoch
        assert float(schedule(first - 1)) == epoch - 1


@pytest.mark.parametrize("nesterov", [False, True])
def test_weights_decay_through_momentum_and_learning_rate(nesterov):
    """Against PyTorch's SGD, written out."""
    lr, momentum, decay = 0.1, 0.9, 0.05
    optimizer = Optimizer(lr, Constant(), momentum, nesterov, weight_decay=decay)
    tx: Any = optimizer.build(Clock(64, 8, EPOCHS))
    params = jnp.array([2.0, -3.0])
    state, w, velocity = tx.init(params), np.array(params), np.zeros(2)
    for gradient in ([1.0, -2.0], [-0.5, 4.0], [3.0, 0.0]):
        updates, state = tx.update(jnp.array(gradient), state, params)
        params += updates
        decayed = gradient + decay * w
        velocity = momentum * velocity + decayed
        w = w - lr * (decayed + momentum * velocity if nesterov else velocity)
        np.testing.assert_allclose(params, w, rtol=1e-5)
