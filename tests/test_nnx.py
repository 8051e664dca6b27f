"""A method in an NNX loop: each pass of a step sees one model, and the step changes it once."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from lanes import soak_but

import jaxlt
import jaxlt.nnx

CLASS_COUNTS = (500, 50, 5)
LABELS = np.array([0] * 28 + [1] * 3 + [2])
METHODS = {
    "sam": lambda: jaxlt.sam(0.3),
    "focal_sam": lambda: jaxlt.focal_sam(CLASS_COUNTS, 0.3, sharpness_weight=0.8, gamma=2.0),
    "sse_sam": lambda: jaxlt.sse_sam(CLASS_COUNTS, 0.1, 0.3, tail_threshold=60),
}


@functools.cache
def images_of_all():
    with jax.ensure_compile_time_eval():
        return jax.random.normal(jax.random.key(0), (32, 8))


class Network(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(8, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.classifier = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, images, rngs=None):
        features = nnx.relu(self.norm(self.hidden(images)))
        return self.classifier(self.dropout(features, rngs=rngs))


def class_losses(logits):
    return jaxlt.class_losses(jaxlt.losses.cross_entropy(logits, LABELS), LABELS, num_classes=3)


def losses_fn(model, images):
    return class_losses(model(images))


def written_out(mask, params):
    """The network's losses and the batch's mean and variance, of arrays alone."""
    hidden = images_of_all() @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    mean, var = hidden.mean(0), hidden.var(0)
    normal = (hidden - mean) / jnp.sqrt(var + 1e-5) * params["norm"]["scale"]
    features = jnp.where(mask, jax.nn.relu(normal + params["norm"]["bias"]) / 0.5, 0)
    logits = features @ params["classifier"]["kernel"] + params["classifier"]["bias"]
    return class_losses(logits), (mean, var)


def drawn(key, count):
    return jax.random.bernoulli(jax.random.fold_in(key, count), 0.5, (32, 16))


def plain(state):
    return nnx.to_pure_dict(nnx.as_pure(state))


def loop(tx, wrt=nnx.Param):
    model = Network(nnx.Rngs(0))
    return model, nnx.Optimizer(model, tx, wrt=wrt)


def train_step(model, optimizer, images=None):
    images = images_of_all() if images is None else images
    step = jaxlt.nnx.value_and_grad(losses_fn, wrt=optimizer.wrt)
    loss, grads, class_losses_fn = step(model, images)
    optimizer.update(model, grads, value=loss, class_losses_fn=class_losses_fn)
    return loss


@pytest.mark.parametrize("name", soak_but(["sse_sam"], METHODS))
def test_two_steps_are_those_of_a_network_written_out_in_arrays(name):
    """Masks, statistics and parameters."""
    tx = optax.chain(METHODS[name](), optax.sgd(0.1, momentum=0.9))
    model, optimizer = loop(tx)
    params = plain(nnx.state(model, nnx.Param))
    state, statistics = tx.init(params), (jnp.zeros(16), jnp.ones(16))
    key, jitted = model.dropout.rngs.key[...], nnx.jit(train_step)

    @jax.jit
    def step(params, state, mask):
        losses = functools.partial(written_out, mask)
        (loss, moments), grads = jax.value_and_grad(
            lambda p: (losses(p)[0].mean(), losses(p)[1]), has_aux=True
        )(params)
        updates, state = tx.update(
            grads, state, params, value=loss, class_losses_fn=lambda p: losses(p)[0]
        )
        return optax.apply_updates(params, updates), state, loss, moments

    for count in range(2):
        loss = jitted(model, optimizer)
        params, state, expected, moments = step(params, state, drawn(key, count))
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        statistics = jax.tree.map(lambda old, new: 0.99 * old + 0.01 * new, statistics, moments)
    chex.assert_trees_all_close(plain(nnx.state(model, nnx.Param)), params, atol=1e-5)
    kept = (model.norm.mean[...], model.norm.var[...])
    chex.assert_trees_all_close(kept, statistics, atol=1e-6)
    kept, expected = (optax.tree.get(s, "sharpness") for s in (optimizer.opt_state, state))
    np.testing.assert_allclose(kept[...], expected, atol=1e-5)
    assert (np.abs(expected) > 1e-2).all()


@pytest.mark.parametrize("name", soak_but(["sse_sam"], METHODS))
def test_what_a_step_leaves_is_what_its_own_pass_leaves_bit_by_bit(name):
    """All but the parameters: batch statistics, counts of generators."""
    model, optimizer = loop(optax.chain(METHODS[name](), optax.sgd(0.1)))
    alone = nnx.clone(model)
    nnx.grad(lambda model: losses_fn(model, images_of_all()).mean())(alone)
    train_step(model, optimizer)
    others = nnx.Not(nnx.Param)
    chex.assert_trees_all_equal(plain(nnx.state(model, others)), plain(nnx.state(alone, others)))
    assert model.dropout.rngs.count[...] == 1
    assert (model.norm.mean[...] != 0).all()


def test_generators_among_the_arguments_draw_the_same_in_every_pass():
    model, rngs = Network(nnx.Rngs(0)), nnx.Rngs(dropout=3)

    def with_generators(model, images, rngs):
        return class_losses(model(images, rngs))

    key, params = rngs.dropout.key[...], nnx.as_pure(nnx.state(model, nnx.Param))
    for count in range(2):
        loss, _, class_losses_fn = jaxlt.nnx.value_and_grad(with_generators)(
            model, images_of_all(), rngs
        )
        expected = written_out(drawn(key, count), plain(params))[0].mean()
        for value in (loss, class_losses_fn(params).mean(), class_losses_fn(params).mean()):
            np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert rngs.dropout.count[...] == 2


def test_keywords_are_passed_on():
    """And a generator among them draws the same in every pass."""

    def with_keywords(model, *, images, rngs):
        return class_losses(model(images, rngs))

    results, draws = [], []
    for function in (lambda model, images, rngs: class_losses(model(images, rngs)), with_keywords):
        model, rngs = Network(nnx.Rngs(0)), nnx.Rngs(7)
        step = jaxlt.nnx.value_and_grad(function)
        if function is with_keywords:
            loss, _, class_losses_fn = step(model, images=images_of_all(), rngs=rngs)
        else:
            loss, _, class_losses_fn = step(model, images_of_all(), rngs)
        assert class_losses_fn(nnx.as_pure(nnx.state(model, nnx.Param))).mean() == loss
        results.append(loss)
        draws.append(rngs.default.count[...])
    assert results[0] == results[1]
    assert draws[0] == draws[1] > 0


def test_wrt_chooses_what_is_trained_and_perturbed():
    def is_classifier(path, variable):
        return path[0] == "classifier" and isinstance(variable, nnx.Param)

    tx = optax.chain(METHODS["sam"](), optax.sgd(0.1))
    model, optimizer = loop(tx, wrt=is_classifier)
    before = plain(nnx.state(model, nnx.Param))
    mask = drawn(model.dropout.rngs.key[...], 0)

    def of_classifier(classifier):
        return written_out(mask, before | {"classifier": classifier})[0]

    grads = jax.grad(lambda p: of_classifier(p).mean())(before["classifier"])
    expected, _ = tx.update(
        grads, tx.init(grads), before["classifier"], class_losses_fn=of_classifier
    )
    train_step(model, optimizer)
    change = jax.tree.map(jnp.subtract, plain(nnx.state(model, nnx.Param)), before)
    chex.assert_trees_all_close(change.pop("classifier"), expected, atol=1e-6)
    assert not any(leaf.any() for leaf in jax.tree.leaves(change))


def test_aux_comes_from_the_pass_that_counts():
    def with_logits(model, images):
        logits = model(images)
        return class_losses(logits), logits

    one, other = Network(nnx.Rngs(0)), Network(nnx.Rngs(0))
    step = jaxlt.nnx.value_and_grad(with_logits, has_aux=True)
    (loss, logits), grads, class_losses_fn = step(one, images_of_all())
    plain_loss, plain_grads, _ = jaxlt.nnx.value_and_grad(losses_fn)(other, images_of_all())
    assert class_losses_fn(nnx.as_pure(nnx.state(one, nnx.Param))).mean() == loss == plain_loss
    chex.assert_trees_all_equal(plain(grads), plain(plain_grads))
    assert class_losses(logits).mean() == loss


def test_the_older_class_of_both_takes_the_same_step():
    tx = optax.chain(METHODS["sam"](), optax.sgd(0.1))
    model, optimizer = loop(tx)
    train_step(model, optimizer)
    both = nnx.ModelAndOptimizer(Network(nnx.Rngs(0)), tx)
    loss, grads, class_losses_fn = jaxlt.nnx.value_and_grad(losses_fn)(both.model, images_of_all())
    both.update(grads, value=loss, class_losses_fn=class_losses_fn)
    chex.assert_trees_all_equal(plain(nnx.state(both.model)), plain(nnx.state(model)))


@pytest.mark.parametrize(
    ("returned", "has_aux", "message"),
    [
        (
            lambda: jnp.ones(4),
            False,
            "losses_fn must return jaxlt.ClassLosses, got an array of shape",
        ),
        (lambda: (jaxlt.ClassLosses(jnp.ones(3), jnp.ones(3)), 1), False, "got tuple"),
        (lambda: jaxlt.ClassLosses(jnp.ones(3), jnp.ones(3)), True, "a pair .* got ClassLosses"),
    ],
)
def test_what_is_no_class_losses_is_named(returned, has_aux, message):
    step = jaxlt.nnx.value_and_grad(lambda model: returned(), has_aux=has_aux)
    with pytest.raises(TypeError, match=message):
        step(Network(nnx.Rngs(0)))


def test_what_the_pass_makes_new_stays_in_the_model():
    def keeping_logits(model, images):
        model.logits = nnx.Intermediate(model(images))
        return class_losses(model.logits[...])

    model: Any = Network(nnx.Rngs(0))
    loss, _, class_losses_fn = jaxlt.nnx.value_and_grad(keeping_logits)(model, images_of_all())
    assert class_losses_fn(nnx.as_pure(nnx.state(model, nnx.Param))).mean() == loss
    assert class_losses(model.logits[...]).mean() == loss


COSTS = [("sam", 2.05), ("sse_sam", 3.7)]


@pytest.mark.parametrize(("name", "bound"), soak_but(COSTS[1:], COSTS))
def test_cost_in_flops_of_sgd(name, bound):
    """The method goes on from the pass that counts: no pass at w is taken twice."""

    def flops(tx):
        model = nnx.Sequential(
            nnx.Conv(3, 16, (3, 3), rngs=nnx.Rngs(0)),
            nnx.BatchNorm(16, rngs=nnx.Rngs(0)),
            nnx.relu,
            nnx.Conv(16, 16, (3, 3), rngs=nnx.Rngs(0)),
            nnx.BatchNorm(16, rngs=nnx.Rngs(0)),
            lambda x: x.mean((1, 2)),
            nnx.Linear(16, 3, rngs=nnx.Rngs(0)),
        )
        optimizer = nnx.Optimizer(model, optax.with_extra_args_support(tx), wrt=nnx.Param)
        step, images = nnx.jit(train_step), jnp.ones((32, 8, 8, 3))
        return step.lower(model, optimizer, images).compile().cost_analysis()["flops"]

    sgd = optax.sgd(0.1)
    assert flops(optax.chain(METHODS[name](), sgd)) < bound * flops(sgd)
