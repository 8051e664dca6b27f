"""The loss, its gradient and the pass that methods need not take again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lanes import soak_but
from small_problems import (
    METHODS,
    NUM_CLASSES,
    assert_close,
    batch,
    class_losses_fn_of,
    factored,
    first_update,
    initial_params,
    is_classifier,
    largest_difference,
    loss_and_gradient,
)

import jaxlt

LOSSES = {"function": class_losses_fn_of, "factored": factored}


@pytest.mark.parametrize(
    ("name", "kind"),
    soak_but(
        {("sam", "function"), ("sse_sam", "function"), ("cc_sam", "factored")},
        [(name, kind) for name in METHODS for kind in LOSSES],
    ),
)
def test_a_step_is_the_same(name, kind):
    params, (x, y), tx, losses_of = initial_params(), batch(2), METHODS[name](), LOSSES[kind]
    calls = []

    def losses_fn(params):
        calls.append(params)
        return losses_of(x, y)(params)

    loss, gradient, class_losses_fn = jaxlt.value_and_grad(losses_fn)(params)
    assert_close((loss, gradient), loss_and_gradient(params, x, y), 1e-6)
    found = tx.update(
        gradient, tx.init(params), params, value=loss, class_losses_fn=class_losses_fn
    )
    assert_close(found, first_update(tx, x, y), 1e-5)
    # One pass at w, the method's own none: one at each w + eps.
    assert len(calls) == {"sse_sam": 3, "cc_sam": 2}.get(name, 2)


def test_something_else_beside_the_losses():
    def losses_fn(params, x, y):
        return class_losses_fn_of(x, y)(params), x.sum()

    params, (x, y) = initial_params(), batch(2)
    (loss, aux), gradient, class_losses_fn = jaxlt.value_and_grad(losses_fn, has_aux=True)(
        params, x, y
    )
    np.testing.assert_allclose(aux, x.sum(), rtol=1e-6)
    assert_close((loss, gradient), loss_and_gradient(params, x, y), 1e-6)
    assert class_losses_fn(params).sums.shape == (NUM_CLASSES,)


def test_at_other_parameters_it_is_the_function():
    """A copy of the parameters is another point as far as it knows."""
    params, (x, y) = initial_params(), batch(2)
    _, _, class_losses_fn = jaxlt.value_and_grad(class_losses_fn_of(x, y))(params)
    moved = jax.tree.map(lambda w: w + 0.1, params)
    expected = class_losses_fn_of(x, y)(moved)
    assert largest_difference(class_losses_fn(moved), expected) == 0
    gradient = jax.grad(lambda p: class_losses_fn(p).mean())(moved)
    assert_close(gradient, loss_and_gradient(moved, x, y)[1], 1e-6)


def test_padding_alone():
    params, x = initial_params(), batch(2)[0]
    loss, gradient, _ = jaxlt.value_and_grad(class_losses_fn_of(x, jnp.full(16, -1)))(params)
    assert loss == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_a_function_that_returns_no_class_losses():
    with pytest.raises(TypeError, match=r"^losses_fn must return jaxlt.ClassLosses, got an array"):
        jaxlt.value_and_grad(lambda p: jnp.square(p))(jnp.ones(3))
    losses_fn = class_losses_fn_of(*batch(2))
    with pytest.raises(TypeError, match=r"^losses_fn must return a pair .*, got ClassLosses"):
        jaxlt.value_and_grad(losses_fn, has_aux=True)(initial_params())


def test_keywords_are_passed_on():
    def losses_fn(params, x, *, labels):
        return class_losses_fn_of(x, labels)(params)

    params, (x, y) = initial_params(), batch(2)
    loss, gradient, _ = jaxlt.value_and_grad(losses_fn)(params, x, labels=y)
    assert_close((loss, gradient), loss_and_gradient(params, x, y), 1e-6)


@pytest.mark.parametrize(
    ("has_aux", "args", "kwargs"), [(True, (), {}), (False, (1,), {}), (False, (), {"x": 1})]
)
def test_factored_losses_take_nothing_beside_params(has_aux, args, kwargs):
    message = r"^losses_fn must be a function .*, got FactoredLosses, .* a field has_aux$"
    with pytest.raises(TypeError, match=message):
        jaxlt.value_and_grad(factored(*batch(2)), has_aux=has_aux)(
            initial_params(), *args, **kwargs
        )


@pytest.mark.parametrize(
    ("name", "mask"),
    soak_but(
        {("cc_sam", is_classifier), ("imb_sam", None)},
        [(name, mask) for name in METHODS for mask in (None, is_classifier)],
    ),
)
def test_factored_losses(name, mask):
    """The features are found once, and the closed form and passes in parts go on from them."""
    params, (x, y), tx = initial_params(), batch(2), METHODS[name](mask=mask)
    losses_fn = factored(x, y, passes=jaxlt.Blocks((4, 1)))
    calls = []

    def counted(params, images):
        calls.append(images)
        return losses_fn.features_fn(params, images), "beside"

    both = dataclasses.replace(losses_fn, features_fn=counted, has_aux=True)
    (loss, aux), gradient, known = jaxlt.value_and_grad(both)(params)
    assert aux == "beside"
    assert_close((loss, gradient), loss_and_gradient(params, x, y), 1e-6)
    calls.clear()
    found = tx.update(gradient, tx.init(params), params, value=loss, class_losses_fn=known)
    assert_close(found, first_update(tx, x, y), 1e-5)
    if name == "cc_sam" and mask is not None:
        # Traced to see what they depend on; computed no more.
        assert all(isinstance(images, jax.Array) for images in calls)
        assert len(calls) == 1
