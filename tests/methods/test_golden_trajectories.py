"""Four steps of each method against the parameters that the authors' released programs reached."""

import functools
import itertools
import json

import jax
import numpy as np
import optax
import pytest
from lanes import soak_but
from small_problems import (
    COUNTS,
    GOLDEN,
    NUM_BATCHES,
    batch,
    class_losses_fn_of,
    factored,
    initial_params,
    is_classifier,
    update,
)

import jaxlt

INDEX = json.loads((GOLDEN / "mlp_index.json").read_text())


def method(name, hyperparameters):
    arguments = dict(hyperparameters)
    scope = arguments.pop("scope", "classifier")
    if name == "sgd":
        return optax.identity()
    if name in ("sam", "asam"):
        return jaxlt.sam(adaptive=name == "asam", **arguments)
    if name.startswith("cc_sam"):
        arguments.setdefault("max_relative_radius", None)
        arguments["mask"] = is_classifier if scope == "classifier" else None
        arguments["grad_norm"] = "per_leaf" if name == "cc_sam_released" else "global"
    if name == "focal_sam":
        arguments["sharpness_weight"] = arguments.pop("sharpness")
    factories = [jaxlt.imb_sam, jaxlt.sse_sam, jaxlt.focal_sam, jaxlt.cc_sam]
    factory = next(f for f in factories if name.startswith(f.__name__))
    return factory(COUNTS, **arguments)


LOSSES = {
    "function": class_losses_fn_of,
    "factored": functools.partial(factored, passes=jaxlt.Blocks((4, 1))),
}
# What passes over groups or takes the closed form there.
FACTORED = ["imb_sam", "cc_sam_classifier", "cc_sam_all"]


@pytest.mark.parametrize(
    ("name", "losses"),
    soak_but(
        [*((name, "function") for name in INDEX), *((name, "factored") for name in FACTORED)],
        itertools.product(INDEX, LOSSES),
    ),
)
def test_trajectory(name, losses, precision):
    golden = np.load(GOLDEN / f"mlp_{name}.npz")
    base = INDEX[name]["base_optimizer"]
    tx = optax.chain(
        method(name, INDEX[name]["hyperparameters"]),
        optax.add_decayed_weights(base["weight_decay"]),
        optax.sgd(base["lr"], momentum=base["momentum"]),
    )
    params = initial_params(precision.dtype)
    state = tx.init(params)

    @jax.jit
    def step(params, state, x, y):
        updates, state = update(
            optax.with_extra_args_support(tx), state, params, x, y, LOSSES[losses]
        )
        return optax.apply_updates(params, updates), state

    for index in range(NUM_BATCHES):
        params, state = step(params, state, *batch(index, precision.dtype))
        for leaf in params:
            np.testing.assert_allclose(
                params[leaf], golden[leaf][index + 1], rtol=0, atol=precision.tolerance
            )


def test_every_golden_file_is_replayed():
    files = {path.stem.removeprefix("mlp_") for path in GOLDEN.glob("mlp_*.npz")}
    assert files - {"problem"} == set(INDEX)
