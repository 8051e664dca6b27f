"""The jitted step: what it costs, and which pass updates the running statistics."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lanes import soak_but

import jaxlt
from jaxlt.models import CifarResNet, create_model
from jaxlt.training import Regime, make_state_fn, make_train_step

NUM_CLASSES, BATCH = 100, 64
COUNTS = tuple(int(500 * 0.01 ** (i / 99)) for i in range(NUM_CLASSES))
TAIL = {"tail_threshold": 100}


def classifier_only(params):
    return {name: name == "classifier" for name in params}


METHODS = {
    "sgd": (optax.identity, 1.0),
    "sam": (lambda: jaxlt.sam(0.1), 2.01),
    "imb_sam": (lambda: jaxlt.imb_sam(COUNTS, 0.1, **TAIL), 2.67),
    "focal_sam": (lambda: jaxlt.focal_sam(COUNTS, 0.1, sharpness_weight=0.8, gamma=3.2), 2.67),
    "sse_sam": (lambda: jaxlt.sse_sam(COUNTS, 0.1, 0.1, **TAIL), 3.68),
    "sse_sam switched": (lambda: jaxlt.sse_sam(COUNTS, 0.1, 0.1, switch_step=0, **TAIL), 2.67),
    "cc_sam classifier": (lambda: jaxlt.cc_sam(COUNTS, mask=classifier_only), 1.01),
    "cc_sam mixed": (lambda: jaxlt.cc_sam(COUNTS, flat_ratio=0.5, mask=classifier_only), 1.01),
}
OTHERS = [name for name in METHODS if name != "sgd"]


def loss(logits, labels, step):
    del step
    return jaxlt.losses.cross_entropy(logits, labels)


@functools.cache
def compiled(method, model, **options):
    network = create_model(model, NUM_CLASSES, image_shape=(32, 32, 3))
    transformation = optax.chain(
        METHODS[method][0](), optax.add_decayed_weights(2e-4), optax.sgd(0.1, momentum=0.9)
    )
    step = make_train_step(network, transformation, loss, NUM_CLASSES, **options)
    state = jax.eval_shape(lambda: make_state_fn(network, transformation, (32, 32, 3))(0))
    images = jax.ShapeDtypeStruct((BATCH, 32, 32, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    program = jax.jit(step, donate_argnums=0)
    return program.lower(state, images, labels).compile()


def flops_over_sgd(method, model="resnet8", **options):
    step, sgd = compiled(method, model, **options), compiled("sgd", model)
    return step.cost_analysis()["flops"] / sgd.cost_analysis()["flops"]


@pytest.mark.parametrize("name", soak_but({"imb_sam", "cc_sam mixed"}, OTHERS))
def test_flops_of_a_whole_resnet_step_over_sgd(name):
    _, bound = METHODS[name]
    assert 1 < flops_over_sgd(name) <= bound


@pytest.mark.soak
def test_perturbed_passes_do_not_hold_their_activations_at_once():
    """Side by side, SSE-SAM's two would take as much again as a step of SGD; see equation.py."""

    def temporary_bytes(name):
        memory = compiled(name, "resnet20").memory_analysis()
        return memory.temp_size_in_bytes

    assert temporary_bytes("sse_sam") < 1.75 * temporary_bytes("sgd")


@pytest.mark.parametrize("method", ["imb_sam", "sse_sam switched"])
def test_flops_of_a_tenth_of_the_batch_on_a_network_of_convolutions(method):
    """A step at w, and two over the images that there is room for."""
    full = flops_over_sgd(method, "small_conv")
    part = flops_over_sgd(method, "small_conv", capacity=8)
    assert 2.5 < full < 2.7
    assert 1.2 < part < 1.3


def test_flops_of_held_statistics():
    held = flops_over_sgd("imb_sam", regime=Regime(hold_statistics=True), capacity=8)
    assert 1.2 < held < 1.3


@pytest.mark.parametrize("method", [optax.identity, lambda: jaxlt.sam(0.5)], ids=["sgd", "sam"])
def test_running_statistics_are_those_of_the_clean_pass(method):
    model = CifarResNet(num_classes=4, blocks=(1, 1, 1))
    transformation = optax.chain(method(), optax.sgd(0.1))
    state = make_state_fn(model, transformation, (8, 8, 1))(0)
    images, labels = batch()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    _, clean = jax.jit(
        lambda: model.apply(variables, images, train=True, mutable=["batch_stats"])
    )()
    after, _ = jax.jit(make_train_step(model, transformation, loss, 4))(state, images, labels)
    assert_equal(after.batch_stats, dict(clean["batch_stats"]))


def drawn(logits, labels, moment):
    """A loss that is drawn."""
    return jax.random.uniform(moment.key, labels.shape) + 0 * logits.sum(1)


@pytest.mark.parametrize(("per_example", "mixup"), [(drawn, 0.0), (loss, 1.0)])
def test_each_step_and_each_key_draws_anew(per_example, mixup):
    model, transformation = create_model("mlp", 4, image_shape=(8, 8, 1)), optax.sgd(0.1)
    step = make_train_step(model, transformation, per_example, 4, regime=Regime(mixup=mixup))
    first, other = map(make_state_fn(model, transformation, (8, 8, 1)), (0, 1))
    later, rekeyed = (dataclasses.replace(first, **f) for f in ({"step": 1}, {"key": other.key}))
    losses = [float(jax.jit(step)(state, *batch())[1]) for state in (first, later, rekeyed, first)]
    assert len(set(losses)) == 3
    assert losses[0] == losses[3]


class TestHeldStatistics:
    """Normalizing by the clean pass's statistics, against a network that is given them."""

    counts, tail = (9, 5, 2, 1), np.array([0, 0, 1, 1])

    def frozen(self, model, state, images):
        """Parameters to logits, with batch norm as a fixed map."""
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        collections = ["batch_stats", "held_statistics"]
        _, kept = jax.jit(lambda: model.apply(variables, images, train=True, mutable=collections))()
        held = {"held_statistics": kept["held_statistics"], "batch_stats": state.batch_stats}
        return lambda params, images: model.apply({"params": params, **held}, images, train=True)

    @pytest.mark.parametrize("capacity", soak_but({8}, [None, 8]))
    def test_imb_sam(self, capacity):
        model = CifarResNet(num_classes=4, blocks=(1, 1, 1))
        rho, lr = 0.3, 0.1
        transformation = optax.chain(
            jaxlt.imb_sam(self.counts, rho, tail_threshold=3), optax.sgd(lr)
        )
        state = make_state_fn(model, transformation, (8, 8, 1))(0)
        images, labels = batch()
        frozen = self.frozen(model, state, images)

        def tail_loss(params):
            losses = jaxlt.losses.cross_entropy(frozen(params, images), labels)
            return (jnp.asarray(self.tail)[labels] * losses).mean()

        def whole_loss(params):
            return jaxlt.losses.cross_entropy(frozen(params, images), labels).mean()

        tail_gradient = jax.jit(jax.grad(tail_loss))
        direction = tail_gradient(state.params)
        factor = rho / optax.tree.norm(direction)
        moved = jax.tree.map(lambda w, d: w + factor * d, state.params, direction)
        gradient = jax.tree.map(
            lambda g, d, m: g - d + m,
            jax.jit(jax.grad(whole_loss))(state.params),
            direction,
            tail_gradient(moved),
        )
        step = make_train_step(
            model, transformation, loss, 4, regime=Regime(hold_statistics=True), capacity=capacity
        )
        after, _ = jax.jit(step)(state, images, labels)
        assert_equal(after.params, jax.tree.map(lambda w, g: w - lr * g, state.params, gradient))

    @pytest.mark.soak
    def test_cc_sam_on_all_parameters_passes_over_each_class_alone(self):
        """With the statistics held, whole batches for each class give what parts give."""
        model = CifarResNet(num_classes=4, blocks=(1, 1, 1))
        method = jaxlt.cc_sam(self.counts, max_relative_radius=0.05)
        transformation = optax.chain(method, optax.sgd(0.1))
        state = make_state_fn(model, transformation, (8, 8, 1))(0)
        images, labels = batch()
        frozen = self.frozen(model, state, images)

        def class_losses_fn(params):
            losses = jaxlt.losses.cross_entropy(frozen(params, images), labels)
            return jaxlt.class_losses(losses, labels, 4)

        gradient = jax.jit(jax.grad(lambda p: class_losses_fn(p).mean()))(state.params)
        updates, _ = jax.jit(
            lambda: optax.with_extra_args_support(transformation).update(
                gradient, state.opt_state, state.params, class_losses_fn=class_losses_fn
            )
        )()
        step = make_train_step(model, transformation, loss, 4, regime=Regime(hold_statistics=True))
        after, _ = jax.jit(step)(state, images, labels)
        assert_equal(after.params, optax.apply_updates(state.params, updates))


@pytest.mark.parametrize(
    ("model", "classifier", "method"),
    soak_but(
        {
            ("mlp", "linear", "sse_sam"),
            ("mlp", "linear", "focal_sam"),
            ("mlp", "linear", "cc_sam mixed"),
            ("small_conv", "cosine", "imb_sam"),
            ("small_conv", "cosine", "cc_sam classifier"),
        },
        [
            *(("mlp", "linear", name) for name in OTHERS),
            *(("small_conv", "cosine", name) for name in OTHERS),
        ],
    ),
)
def test_savings_change_nothing(model, classifier, method):
    """Against the same step of a network that says nothing of itself."""
    counts = (9, 5, 2, 1)
    method = {
        "sam": lambda: jaxlt.sam(0.1),
        "imb_sam": lambda: jaxlt.imb_sam(counts, 0.1, tail_threshold=3),
        "focal_sam": lambda: jaxlt.focal_sam(counts, 0.1, sharpness_weight=0.8, gamma=3.2),
        "sse_sam": lambda: jaxlt.sse_sam(counts, 0.1, 0.1, tail_threshold=3),
        "sse_sam switched": lambda: jaxlt.sse_sam(
            counts, 0.1, 0.1, tail_threshold=3, switch_step=0
        ),
        "cc_sam classifier": lambda: jaxlt.cc_sam(
            counts, max_relative_radius=0.1, mask=classifier_only
        ),
        "cc_sam mixed": lambda: jaxlt.cc_sam(counts, max_relative_radius=0.1, flat_ratio=0.5),
    }[method]()
    network = create_model(model, 4, classifier=classifier, image_shape=(8, 8, 1))
    transformation = optax.chain(method, optax.sgd(0.1))
    state = make_state_fn(network, transformation, (8, 8, 1))(0)
    after, mean = jax.jit(make_train_step(network, transformation, loss, 4, capacity=8))(
        state, *batch()
    )
    plain, plain_mean = jax.jit(make_train_step(Opaque(network), transformation, loss, 4))(
        state, *batch()
    )
    assert_equal(after, plain)
    np.testing.assert_allclose(mean, plain_mean, rtol=1e-5)


class Opaque:
    """A network that the step knows nothing of but how to apply it."""

    def __init__(self, model):
        self.apply = model.apply


def batch():
    """Sixteen images of four classes, seven of the two rarest."""
    images = jax.random.normal(jax.random.key(1), (16, 8, 8, 1))
    return images, jnp.array([0, 2, 1, 0, 3, 0, 1, 2, 0, 2, 1, 0, 3, 1, 2, 3])


def assert_equal(ours, theirs):
    def check(one, other):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        tolerance = 2e-5 * max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)

    jax.tree.map(check, ours, theirs)
