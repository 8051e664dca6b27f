"""XLA merges forward passes at the same parameters, whichever the normalization."""

from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from lanes import soak_but

import jaxlt
from jaxlt.models import CifarResNet, create_model

NUM_CLASSES, BATCH, SHAPE = 100, 64, (32, 32, 3)
COUNTS = tuple(int(500 * 0.01 ** (i / 99)) for i in range(NUM_CLASSES))

MODELS: dict[str, Any] = {
    "small_vit": create_model("small_vit", NUM_CLASSES, image_shape=SHAPE),
    "resnet8_gn": CifarResNet(num_classes=NUM_CLASSES, blocks=(1, 1, 1), norm="group"),
}
# A backward pass costs two forward passes: SAM 2 x 3 of SGD's 3, ImbSAM 3 + 2 + 3, and so on.
METHODS = {
    "sam": (lambda: jaxlt.sam(0.1), 2),
    "imb_sam": (lambda: jaxlt.imb_sam(COUNTS, 0.1, tail_threshold=100), 8 / 3),
    "focal_sam": (lambda: jaxlt.focal_sam(COUNTS, 0.1, sharpness_weight=0.8, gamma=3.2), 8 / 3),
    "sse_sam": (lambda: jaxlt.sse_sam(COUNTS, 0.1, 0.1, tail_threshold=100), 11 / 3),
}


def _flops(model, method):
    """Counts a whole step, whose further passes take the whole batch."""
    transformation = optax.with_extra_args_support(
        optax.chain(method, optax.add_decayed_weights(2e-4), optax.sgd(0.1, momentum=0.9))
    )

    def step(params, opt_state, images, labels):
        def losses(params):
            logits = model.apply({"params": params}, images, train=True)
            per_example = jaxlt.losses.cross_entropy(logits, labels)
            return jaxlt.class_losses(per_example, labels, NUM_CLASSES)

        gradient = jax.grad(lambda params: losses(params).mean())(params)
        updates, opt_state = transformation.update(
            gradient, opt_state, params, class_losses_fn=losses
        )
        return optax.apply_updates(params, updates), opt_state

    images, labels = jnp.zeros((BATCH, *SHAPE)), jnp.zeros(BATCH, jnp.int32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    params = variables["params"]
    opt_state = jax.eval_shape(transformation.init, params)
    program: Any = jax.jit(step).lower(params, opt_state, images, labels).compile()
    return program.cost_analysis()["flops"]


@cache
def _sgd_flops(name):
    return _flops(MODELS[name], optax.identity())


@pytest.mark.parametrize(
    ("model", "method"),
    soak_but(
        {("small_vit", "imb_sam"), ("resnet8_gn", "sam")},
        [
            *(("small_vit", name) for name in METHODS),
            *(("resnet8_gn", name) for name in ("sam", "sse_sam")),
        ],
    ),
)
def test_flops_of_a_whole_step_over_sgd(model, method):
    make_method, expected = METHODS[method]
    # The first layer needs no gradient by its input, so a backward pass costs a little less.
    ratio = _flops(MODELS[model], make_method()) / _sgd_flops(model)
    assert ratio == pytest.approx(expected, rel=0.005)


class _Flax(nn.Module):
    """Two convolutions with a norm layer of Flax's own, features and logits."""

    norm: str

    @nn.compact
    def __call__(self, x):
        for channels in (16, 32):
            x = nn.Conv(channels, (3, 3), use_bias=False)(x)
            x = self.normalized(x)
            x = nn.relu(x)
        x = x.mean((1, 2))
        return x, nn.Dense(NUM_CLASSES, name="classifier")(x)

    def normalized(self, x):
        if self.norm == "batch":
            return nn.BatchNorm(use_running_average=False)(x)
        return (nn.LayerNorm() if self.norm == "layer" else nn.GroupNorm(4))(x)


def _flops_in_a_loop_of_ones_own(norm, method, factored=False):
    """Counts a step that keeps the batch statistics and reports its loss."""
    model, tx = _Flax(norm), optax.chain(method, optax.sgd(0.1))
    tx = optax.with_extra_args_support(tx)

    def step(variables, opt_state, images, labels):
        def losses_fn(params):
            (_, logits), changed = applied(params, images)
            losses = jaxlt.losses.cross_entropy(logits, labels)
            return jaxlt.class_losses(losses, labels, NUM_CLASSES), changed

        def applied(params, images):
            return model.apply({**variables, "params": params}, images, mutable=True)

        def features_fn(params, images):
            (features, _), changed = applied(params, images)
            return features, changed

        params = variables["params"]
        function: Any = losses_fn
        if factored:
            function = jaxlt.FactoredLosses(
                features_fn=features_fn,
                classifier_fn=lambda p: jaxlt.Linear(**p["classifier"]),
                loss_fn=jaxlt.losses.cross_entropy,
                images=images,
                labels=labels,
                num_classes=NUM_CLASSES,
                has_aux=True,
            )
        (loss, changed), gradient, losses_of = jaxlt.value_and_grad(function, has_aux=not factored)(
            params
        )
        updates, opt_state = tx.update(
            gradient, opt_state, params, value=loss, class_losses_fn=losses_of
        )
        return {**changed, "params": optax.apply_updates(params, updates)}, opt_state, loss

    images, labels = jnp.zeros((32, 16, 16, 3)), jnp.zeros(32, jnp.int32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    opt_state = jax.eval_shape(tx.init, variables["params"])
    program: Any = jax.jit(step).lower(variables, opt_state, images, labels).compile()
    return program.cost_analysis()["flops"]


@cache
def _sgd_flops_in_a_loop_of_ones_own(norm):
    return _flops_in_a_loop_of_ones_own(norm, optax.identity())


@pytest.mark.parametrize(
    ("norm", "method"),
    soak_but(
        {("batch", "sam"), ("layer", "sse_sam"), ("group", "sam")},
        [(norm, name) for norm in ("batch", "layer", "group") for name in METHODS],
    ),
)
def test_flops_with_flax_norms_in_a_loop_of_ones_own(norm, method):
    """XLA does not merge two forward passes through these: none is taken twice."""
    make_method, expected = METHODS[method]
    flops = _flops_in_a_loop_of_ones_own(norm, make_method())
    assert flops / _sgd_flops_in_a_loop_of_ones_own(norm) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("norm", soak_but({"batch"}, ["batch", "layer", "group"]))
def test_flops_of_cc_sam_on_the_classifier_with_flax_norms(norm):
    """One forward and one backward pass, for the statistics and the loss of the loop too."""
    method = jaxlt.cc_sam(COUNTS, mask=lambda p: {name: name == "classifier" for name in p})
    flops = _flops_in_a_loop_of_ones_own(norm, method, factored=True)
    assert flops / _sgd_flops_in_a_loop_of_ones_own(norm) == pytest.approx(1, abs=0.02)
