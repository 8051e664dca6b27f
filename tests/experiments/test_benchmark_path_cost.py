"""FLOPs of the path taken, on programs made of a known number of matrix products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark.path_cost import Cost, path_cost

SIDE = 64
PRODUCT = 2 * SIDE**3
MATRIX = np.eye(SIDE, dtype=np.float32)


def product(y):
    # The sine keeps XLA from folding products together, and counts as no FLOP.
    return jnp.sin(y @ MATRIX)


def products(number):
    def run(y):
        for _ in range(number):
            y = product(y)
        return y

    return run


def loop(trips, body, y):
    return jax.lax.fori_loop(0, trips, lambda i, y: body(y), y)


def triangle(trips, y):
    return jax.lax.fori_loop(0, trips, lambda i, y: loop(i, product, y), y)


def alternating(trips, y):
    def body(i, y):
        return jax.lax.cond(i % 2 == 0, products(1), products(3), y)

    return jax.lax.fori_loop(0, trips, body, y)


def counted_in_products(function, *args):
    return path_cost(function, *args).flops / PRODUCT


@pytest.mark.parametrize("trips", [0, 1, 7])
def test_a_loop_counts_as_often_as_it_runs(trips):
    assert counted_in_products(lambda n, y: loop(n, product, y), trips, MATRIX) == (
        pytest.approx(trips, abs=1e-3)
    )


def test_nested_loops():
    assert counted_in_products(triangle, 5, MATRIX) == pytest.approx(0 + 1 + 2 + 3 + 4, abs=1e-3)


@pytest.mark.parametrize("length", [1, 2, 10])
def test_a_scan(length):
    def scan(y):
        return jax.lax.scan(lambda y, x: (product(y) + x, y[0]), y, jnp.arange(1.0 * length))

    assert counted_in_products(scan, MATRIX) == pytest.approx(length, rel=0.01)


def test_a_loop_whose_length_a_reversed_scan_computes():
    def function(xs, y):
        # Reversed, the last carry is the first element plus twice the second: 2 + 2 * 3.
        trips, _ = jax.lax.scan(lambda c, x: (2 * c + x, None), 0, xs, reverse=True)
        return loop(trips, product, y)

    xs = jnp.array([2, 3, 0])
    assert counted_in_products(function, xs, MATRIX) == pytest.approx(8, abs=1e-3)


def test_a_loop_whose_length_comes_from_a_scans_rows():
    def function(xs, y):
        _, rows = jax.lax.scan(lambda c, x: (c + x, c + x), 0, xs, reverse=True)
        return loop(rows[0] - rows[2], product, y)

    xs = jnp.array([2, 3, 7])
    assert counted_in_products(function, xs, MATRIX) == pytest.approx(5, abs=1e-3)


@pytest.mark.parametrize(("taken", "expected"), [(True, 1), (False, 4)])
def test_a_conditional_counts_for_the_branch_taken(taken, expected):
    def function(flag, y):
        return product(jax.lax.cond(flag, lambda y: y, products(3), y))

    assert counted_in_products(function, taken, MATRIX) == pytest.approx(expected, abs=1e-3)


def test_a_conditional_in_a_loop():
    assert counted_in_products(alternating, 5, MATRIX) == pytest.approx(1 + 3 + 1 + 3 + 1, abs=1e-3)


def with_custom_jvp(function):
    wrapped = jax.custom_jvp(function)
    wrapped.defjvp(lambda primals, tangents: (function(*primals), tangents[1]))
    return wrapped


def with_custom_vjp(function):
    wrapped = jax.custom_vjp(function)
    wrapped.defvjp(lambda n, y: (function(n, y), None), lambda _, y: (None, y))
    return wrapped


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, with_custom_jvp, with_custom_vjp])
def test_loops_inside_other_programs_are_found(wrap):
    inner = wrap(lambda n, y: loop(n, product, y))
    assert counted_in_products(lambda n, y: product(inner(n, y)), 4, MATRIX) == (
        pytest.approx(5, abs=1e-3)
    )


def test_what_a_loops_body_differentiates():
    """A gradient is two products with the matrix and one by it: three times the loss."""

    def loss(w):
        return jnp.sin(w @ w @ MATRIX).sum()

    def function(trips, w):
        return jax.lax.fori_loop(0, trips, lambda i, w: w - jax.grad(loss)(w), w)

    once = counted_in_products(lambda w: w - jax.grad(loss)(w), MATRIX)
    assert once > 3
    assert counted_in_products(function, 6, MATRIX) == pytest.approx(6 * once, rel=1e-2)


def test_bytes_grow_with_the_trips_too():
    def function(trips, y):
        return loop(trips, product, y)

    one, five = (path_cost(function, n, MATRIX) for n in (1, 5))
    four_products = path_cost(function, 4, MATRIX) - path_cost(function, 0, MATRIX)
    # Each reads two matrices and writes one at least.
    assert (five - one).bytes == pytest.approx(four_products.bytes)
    assert four_products.bytes >= 4 * 3 * 4 * SIDE**2


def test_costs_add_and_subtract():
    assert Cost(3.0, 5.0) + Cost(1.0, 2.0) - Cost(2.0, 2.0) == Cost(2.0, 5.0)


def test_arguments_survive():
    state = jnp.ones((4, 4))
    path_cost(lambda y: y @ y, state)
    assert not state.is_deleted()
