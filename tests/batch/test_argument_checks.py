"""Hyperparameters of every kind, and what is wrong with the others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlt.batch.argument_checks import (
    at_step,
    check_not_negative,
    check_positive,
    check_share,
    check_threshold,
    check_whole,
)

CHECKS = [check_not_negative, check_positive, check_share]
NUMBERS = [1, 1.0, np.float32(1), np.int8(1), np.ones(()), np.ones((), jnp.bfloat16)]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("kind", [lambda number: number, jnp.asarray])
def test_kinds_of_numbers(number, kind):
    number = kind(number)
    for check in CHECKS:
        check(rho=number)
    check_threshold(tail_threshold=number)
    check_whole(1, switch_step=number)
    assert at_step(number, jnp.zeros([], int)) == 1


@pytest.mark.parametrize("check", CHECKS)
def test_schedules_and_traced_numbers(check):
    check(rho=optax.linear_schedule(1.0, 0.0, 3))
    check(rho=lambda step: 1)
    jax.jit(lambda rho: check(rho=rho))(-1.0)
    jax.jit(lambda number: check_whole(0, switch_step=number))(-1.5)
    jax.jit(lambda number: check_threshold(tail_threshold=number))(-1)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("0.1", "'0.1'"),
        (None, "None"),
        (True, "True"),
        (0.1j, "0.1j"),
        ((90, 10), r"\(90, 10\)"),
        (np.ones(1), r"array\(\[1.\]\)"),
        (np.ones((2, 2)), r"array\(\[\["),
        (np.array(True), r"array\(True\)"),
        (lambda step: "0.1", "a schedule of '0.1'"),
        (lambda step: jnp.ones(2), "a schedule of Array"),
    ],
)
@pytest.mark.usefixtures("unchecked_arrays")
def test_no_number(check, value, got):
    with pytest.raises(
        ValueError, match=f"^rho must be one number, or a schedule of it, got {got}"
    ):
        check(rho=value)


@pytest.mark.parametrize("value", ["3", (3,), None, True, np.nan, -1, lambda step: 3, 2j])
@pytest.mark.usefixtures("unchecked_arrays")
def test_no_threshold(value):
    with pytest.raises(ValueError, match=r"^tail_threshold must be a number of images, at least 0"):
        check_threshold(tail_threshold=value)


@pytest.mark.parametrize(
    "value", ["3", (3,), None, True, np.nan, np.inf, -3, 2.5, lambda step: 3, np.float32(0.5)]
)
@pytest.mark.usefixtures("unchecked_arrays")
def test_no_whole_number(value):
    with pytest.raises(ValueError, match=r"^switch_step must be a whole number, at least 0, got"):
        check_whole(0, switch_step=value)
    with pytest.raises(ValueError, match=r"^chunk_size must be a whole number, at least 1, got 0"):
        check_whole(1, chunk_size=0)


def test_a_schedule_that_turns_negative_is_nan_from_there_on():
    schedule = optax.linear_schedule(1.0, -1.0, 4)
    check_not_negative(rho=schedule)
    steps = jnp.arange(4)
    values = jax.jit(jax.vmap(lambda step: at_step(schedule, step)))(steps)
    np.testing.assert_array_equal(values, [1.0, 0.5, 0.0, np.nan])
