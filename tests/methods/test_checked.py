"""The checked mode: what it notices, what it lets pass, and that it changes nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from small_problems import (
    METHODS,
    batch,
    class_losses_fn_of,
    initial_params,
    largest_difference,
    plain_gradient,
)

import jaxlt


def scaled(factor):
    return lambda gradient: jax.tree.map(lambda g: factor * g, gradient)


def of_another_batch(gradient):
    return plain_gradient(initial_params(), *batch(1))


WRONG = {
    "sum": (scaled(16.0), r"got 16 times it: divide the loss by the batch size"),
    "after an optimizer": (scaled(-0.1), r"got -0\.1 times it: put the method first"),
    "padding counted": (
        scaled(0.5),
        r"got 0\.5 times it: divide the loss by the images",
    ),
    "not finite": (scaled(jnp.nan), r"got one that is not finite where that of class_losses_fn"),
    "another batch": (of_another_batch, r"got one that differs from it by \d+%: put the method"),
}


def update(method, gradient):
    params, (x, y) = initial_params(), batch(2)
    tx = jaxlt.checked(method)
    losses_fn = class_losses_fn_of(x, y)
    return tx.update(gradient, tx.init(params), params, class_losses_fn=losses_fn)


def right_gradient():
    return plain_gradient(initial_params(), *batch(2))


@pytest.mark.parametrize("name", METHODS)
def test_the_right_gradient_passes_and_nothing_changes(name):
    found, _ = update(METHODS[name](), right_gradient())
    params, (x, y) = initial_params(), batch(2)
    tx, losses_fn = METHODS[name](), class_losses_fn_of(x, y)
    alone, _ = tx.update(right_gradient(), tx.init(params), params, class_losses_fn=losses_fn)
    assert largest_difference(found, alone) == 0


def test_16_bits_pass():
    update(jaxlt.sam(0.1), jax.tree.map(lambda g: g.astype(jnp.bfloat16), right_gradient()))


@pytest.mark.parametrize("kind", WRONG)
def test_another_gradient_is_refused(kind):
    change, message = WRONG[kind]
    need = r"updates must be the gradient of class_losses_fn\(params\).mean\(\), "
    with pytest.raises(ValueError, match=f"^{need}{message}"):
        update(jaxlt.sam(0.1), change(right_gradient()))
    with pytest.raises(jax.errors.JaxRuntimeError, match=need + message):
        jax.block_until_ready(
            jax.jit(lambda g: update(jaxlt.sam(0.1), g))(change(right_gradient()))
        )


def linear(slope, offset=0.0):
    return lambda w: jaxlt.ClassLosses(slope * w + offset, jnp.ones(2))


@pytest.mark.parametrize("slope", [1e-25, 1e25])
def test_gradients_of_any_size(slope):
    w = jnp.array([3.0, 4.0])
    tx = jaxlt.checked(jaxlt.sam(0.1))
    right = jnp.full(2, slope / 2)
    tx.update(right, tx.init(w), w, class_losses_fn=linear(slope))
    with pytest.raises(ValueError, match=r"got 2 times it: divide the loss by the batch size"):
        tx.update(2 * right, tx.init(w), w, class_losses_fn=linear(slope))


@pytest.mark.parametrize(
    ("losses_fn", "message"),
    [
        (linear(0.0), "got one of norm 1.41 where that of class_losses_fn is zero"),
        (linear(jnp.inf), None),
        (lambda w: jaxlt.ClassLosses(jnp.sqrt(w - w), jnp.ones(2)), "^class_losses_fn must have a"),
    ],
    ids=["zero", "overflow", "infinite slope"],
)
def test_a_gradient_without_a_direction(losses_fn, message):
    w, tx = jnp.array([3.0, 4.0]), jaxlt.checked(jaxlt.sam(0.1))

    def one_step():
        return tx.update(jnp.ones(2), tx.init(w), w, class_losses_fn=losses_fn)

    if message is None:
        one_step()
    else:
        with pytest.raises(ValueError, match=message):
            one_step()


def test_what_descends_within_every():
    sgd = optax.sgd(0.1)
    with pytest.raises(ValueError, match=r"^method must return a gradient, got what points again"):
        update(jaxlt.every(2, optax.chain(jaxlt.sam(0.1), sgd)), right_gradient())
    update(jaxlt.every(2, optax.chain(jaxlt.sam(0.1), optax.clip(0.01))), right_gradient())


def test_no_method():
    method: Any = "sam"
    with pytest.raises(TypeError, match=r"^method must be an optax transformation, such as"):
        jaxlt.checked(method)


def test_a_method_behind_an_optimizer_in_a_chain():
    params, (x, y) = initial_params(), batch(2)
    tx = optax.chain(optax.sgd(0.1), jaxlt.checked(jaxlt.sam(0.1)))
    with pytest.raises(ValueError, match=r"put the method first in optax\.chain, before the opt"):
        tx.update(
            right_gradient(), tx.init(params), params, class_losses_fn=class_losses_fn_of(x, y)
        )
