"""The checked mode: what it notices, what it lets pass, and that it changes nothing."""

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


def test_a_method_behind_an_optimizer_in_a_chain():
    params, (x, y) = initial_params(), batch(2)
    tx = optax.chain(optax.sgd(0.1), jaxlt.checked(jaxlt.sam(0.1)))
    with pytest.raises(ValueError, match=r"put the method first in optax\.chain, before the opt"):
        tx.update(
            right_gradient(), tx.init(params), params, class_losses_fn=class_losses_fn_of(x, y)
        )
