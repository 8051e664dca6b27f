"""The jitted step: what it costs, and which pass updates the running statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlt
from jaxlt.models import create_model
from jaxlt.training import make_state_fn, make_train_step

NUM_CLASSES, BATCH = 100, 64
COUNTS = tuple(int(500 * 0.01 ** (i / 99)) for i in range(NUM_CLASSES))
TAIL = {"tail_threshold": 100}


def classifier_only(params):
    return {name: name == "classifier" for name in params}


METHODS = {
    "sgd": (optax.identity, 1.0),
    "sam": (lambda: jaxlt.sam(0.1), 2.01),
    "imb_sam": (lambda: jaxlt.imb_sam(COUNTS, 0.1, **TAIL), 2.67),
    "focal_sam": (lambda: jaxlt.focal_sam(COUNTS, 0.1, sharpness=0.8, gamma=3.2), 2.67),
    "sse_sam": (lambda: jaxlt.sse_sam(COUNTS, 0.1, 0.1, **TAIL), 3.68),
    "sse_sam stage 2": (lambda: jaxlt.sse_sam(COUNTS, 0.0, 0.1, **TAIL), 2.67),
    "cc_sam classifier": (lambda: jaxlt.cc_sam(COUNTS, flat_ratio=0.5, mask=classifier_only), 1.05),
}


def loss(logits, labels, step):
    del step
    return jaxlt.losses.cross_entropy(logits, labels)


def flops(make_method):
    model = create_model("resnet32", NUM_CLASSES, image_shape=(32, 32, 3))
    transformation = optax.chain(
        make_method(), optax.add_decayed_weights(2e-4), optax.sgd(0.1, momentum=0.9)
    )
    step = make_train_step(model, transformation, loss, NUM_CLASSES)
    state = jax.eval_shape(lambda: make_state_fn(model, transformation, (32, 32, 3))(0))
    images = jax.ShapeDtypeStruct((BATCH, 32, 32, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    return step.lower(state, images, labels).compile().cost_analysis()["flops"]


@pytest.fixture(scope="module")
def sgd_flops():
    return flops(METHODS["sgd"][0])


@pytest.mark.parametrize("name", [name for name in METHODS if name != "sgd"])
def test_flops_of_a_whole_resnet32_step_over_sgd(name, sgd_flops):
    make_method, bound = METHODS[name]
    assert 1 < flops(make_method) / sgd_flops <= bound


@pytest.mark.parametrize("method", [optax.identity(), jaxlt.sam(0.5)], ids=["sgd", "sam"])
def test_running_statistics_are_those_of_the_clean_pass(method):
    model = create_model("resnet20", 4, image_shape=(8, 8, 1))
    transformation = optax.chain(method, optax.sgd(0.1))
    state = make_state_fn(model, transformation, (8, 8, 1))(0)
    images = jax.random.normal(jax.random.key(1), (16, 8, 8, 1))
    labels = jnp.arange(16) % 4
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    _, clean = model.apply(variables, images, train=True, mutable=["batch_stats"])
    after, _ = make_train_step(model, transformation, loss, 4)(state, images, labels)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        after.batch_stats,
        dict(clean["batch_stats"]),
    )


def test_the_state_is_donated():
    model = create_model("mlp", 3, image_shape=(8, 8, 1))
    transformation = optax.sgd(0.1)
    state = make_state_fn(model, transformation, (8, 8, 1))(0)
    step = make_train_step(model, transformation, loss, 3)
    step(state, jnp.zeros((4, 8, 8, 1)), jnp.zeros(4, jnp.int32))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
