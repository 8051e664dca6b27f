"""The problems that the tests of the core share: the golden MLP, and one table of methods."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import settings

import jaxlt

GOLDEN = Path(__file__).parent / "golden"
COUNTS = (120, 60, 25, 12, 4)
NUM_CLASSES = len(COUNTS)
CLASSIFIER = ("classifier.bias", "classifier.kernel")
NUM_BATCHES = 4

quick = settings(max_examples=20, deadline=None, derandomize=True)

_problem = np.load(GOLDEN / "mlp_problem.npz")
_start = np.load(GOLDEN / "mlp_sgd.npz")
PARAMETERS = tuple(_start.files)


class Method(NamedTuple):
    factory: Callable[..., optax.GradientTransformationExtraArgs]
    arguments: dict[str, Any]

    def __call__(self, **changed: Any) -> Any:
        return self.factory(**self.arguments | changed)


METHODS = {
    "sam": Method(jaxlt.sam, {"rho": 0.1}),
    "imb_sam": Method(jaxlt.imb_sam, {"class_counts": COUNTS, "rho": 0.1, "tail_threshold": 20}),
    "sse_sam": Method(
        jaxlt.sse_sam,
        {"class_counts": COUNTS, "head_rho": 0.05, "tail_rho": 0.1, "tail_threshold": 20},
    ),
    "focal_sam": Method(
        jaxlt.focal_sam, {"class_counts": COUNTS, "rho": 0.2, "sharpness_weight": 0.8, "gamma": 3.2}
    ),
    "cc_sam": Method(
        jaxlt.cc_sam,
        {
            "class_counts": COUNTS,
            "radius_scale": 0.05,
            "flat_ratio": 0.7,
            "max_relative_radius": 0.5,
        },
    ),
}
RADII = {
    "sam": ("rho",),
    "imb_sam": ("rho",),
    "sse_sam": ("head_rho", "tail_rho"),
    "focal_sam": ("rho",),
    "cc_sam": ("radius_scale",),
}


def initial_params(dtype: Any = float) -> dict[str, jax.Array]:
    return {name: jnp.asarray(_start[name][0], dtype) for name in PARAMETERS}


def batch(index: int, dtype: Any = float) -> tuple[jax.Array, jax.Array]:
    """Images and labels; batch 0 has no image of the rarest classes, batch 2 has every class."""
    return jnp.asarray(_problem["x"][index], dtype), jnp.asarray(_problem["y"][index])


def features(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["dense1.kernel"] + params["dense1.bias"][None])


def logits(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return features(params, x) @ params["classifier.kernel"] + params["classifier.bias"][None]


def class_losses_fn_of(x: jax.Array, y: jax.Array, num_classes: int = NUM_CLASSES):
    def class_losses_fn(params):
        per_example = jaxlt.losses.cross_entropy(logits(params, x), y)
        return jaxlt.class_losses(per_example, y, num_classes)

    return class_losses_fn


def factored(x: jax.Array, y: jax.Array, passes: Any = None, **changed: Any):
    """The same losses as an object; with passes, its images are independent, as they are."""
    fields: dict[str, Any] = {
        "features_fn": features,
        "classifier_fn": lambda p: jaxlt.Linear(p["classifier.kernel"], p["classifier.bias"]),
        "loss_fn": jaxlt.losses.cross_entropy,
        "images": x,
        "labels": y,
        "num_classes": NUM_CLASSES,
        "independent": passes is not None,
        "passes": passes,
    }
    return jaxlt.FactoredLosses(**fields | changed)


def loss_and_gradient(params, x, y):
    return jax.value_and_grad(lambda p: class_losses_fn_of(x, y)(p).mean())(params)


def plain_gradient(params, x, y):
    return loss_and_gradient(params, x, y)[1]


def update(tx, state, params, x, y, losses_of=class_losses_fn_of):
    """One call of `tx.update` on the MLP: updates and state."""
    loss, gradient = loss_and_gradient(params, x, y)
    return tx.update(gradient, state, params, value=loss, class_losses_fn=losses_of(x, y))


def first_update(tx, x, y):
    """The updates and the state of a first step."""
    params = initial_params(x.dtype)
    return update(tx, tx.init(params), params, x, y)


def changed_update(tx, class_losses_fn, params):
    """A first step with losses of the caller's own, under `jit`."""

    def step(params):
        loss, gradient = jax.value_and_grad(lambda p: class_losses_fn(p).mean())(params)
        return tx.update(
            gradient, tx.init(params), params, value=loss, class_losses_fn=class_losses_fn
        )

    return jax.jit(step)(params)


def compiled(tx, params):
    """`update` at fixed parameters under `jit`, so that everything in it must be traceable."""
    return jax.jit(lambda state, x, y: update(tx, state, params, x, y))


def is_classifier(params):
    """A mask."""
    return {name: name in CLASSIFIER for name in params}


def assert_close(actual, desired, tolerance):
    """Leaf by leaf, to `tolerance` of each leaf's largest entry or of 1, the larger."""
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for (path, one), other in zip(
        jax.tree.leaves_with_path(actual), jax.tree.leaves(desired), strict=True
    ):
        np.testing.assert_allclose(
            one, other, rtol=0, atol=tolerance * max(1.0, np.abs(other).max()), err_msg=str(path)
        )


def largest_difference(one, other) -> float:
    differences = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), one, other)
    return max(jax.tree.leaves(differences))
