"""What the parts of a `FactoredLosses` may be, and what is wrong with the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import (
    METHODS,
    assert_close,
    changed_update,
    factored,
    features,
    initial_params,
    is_classifier,
)
from small_problems import batch as small_batch

import jaxlt


@pytest.mark.parametrize(
    ("labels", "images", "message"),
    [
        (
            np.zeros((4, 3), np.float32),
            np.ones((4, 2)),
            r"labels must be .*, got float32 of shape \(4, 3\)",
        ),
        (
            np.zeros(4, np.float32),
            np.ones((4, 2)),
            r"labels must be integers .*, got float32 of shape \(4,\)",
        ),
        (
            np.zeros(4, int),
            {"image": np.ones((5, 2))},
            r"images must, as labels, have shape \(4, 2\), got \(5, 2\)",
        ),
        (np.zeros(4, int), np.ones(()), r"images must, .*, have shape \(4,\), got \(\)"),
    ],
)
def test_error_names_the_data(labels, images, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        factored(images, labels)


@pytest.mark.parametrize(("method", "mask"), [("cc_sam", is_classifier), ("imb_sam", None)])
def test_arrays_of_numpy_and_keys_will_do(method, mask):
    x, y = small_batch(2, jnp.float32)
    params, tx = initial_params(jnp.float32), METHODS[method](mask=mask)

    def update(x, y, keys):
        images, passes = {"x": x, "key": keys}, jaxlt.Blocks()
        obj = factored(images, y, passes, features_fn=lambda p, z: features(p, z["x"]))
        return changed_update(tx, obj, params)

    keys = jax.random.split(jax.random.key(0), len(y))
    assert_close(update(np.asarray(x), np.asarray(y), keys), update(x, y, keys), 1e-6)


FIELDS = {
    "mean": (
        {"loss_fn": lambda x, y: jaxlt.losses.cross_entropy(x, y).mean()},
        r"loss_fn must return a loss a row, of shape \(\d+,\), got \(\)",
    ),
    "loss of logits": (
        {"loss_fn": lambda x, y: x},
        r"loss_fn must return a loss a row, of shape \(\d+,\), got \(\d+, 5\)",
    ),
    "one feature": (
        {"features_fn": lambda p, x: x[:, 0]},
        r"features_fn must return shape \(\d+, D\), got \(\d+,\)",
    ),
    "features of maps": (
        {"features_fn": lambda p, x: x[:, :, None]},
        r"features_fn must return shape \(\d+, D\), got \(\d+, 8, 1\)",
    ),
    "kernel": (
        {"classifier_fn": lambda p: jaxlt.Linear(p["dense1.kernel"])},
        r"classifier_fn must return a leaf of shape \(12, 5\), got \(8, 12\)",
    ),
    "bias": (
        {"classifier_fn": lambda p: jaxlt.Linear(p["classifier.kernel"], p["dense1.bias"])},
        r"classifier_fn must return a leaf of shape \(5,\), got \(12,\)",
    ),
}


@pytest.mark.usefixtures("unchecked_arrays")
class TestParts:
    @pytest.mark.parametrize("name", FIELDS)
    def test_of_the_losses(self, name):
        fields, message = FIELDS[name]
        with pytest.raises(ValueError, match=f"^{message}"):
            factored(*small_batch(2), **fields)(initial_params())

    def test_of_no_classifier(self):
        obj = factored(*small_batch(2), classifier_fn=lambda p: {"kernel": p["classifier.kernel"]})
        message = "^classifier_fn must return jaxlt.Linear or jaxlt.Cosine, got dict"
        with pytest.raises(TypeError, match=message):
            obj(initial_params())
        with pytest.raises(TypeError, match=message):
            changed_update(METHODS["cc_sam"](mask=is_classifier), obj, initial_params())

    @pytest.mark.parametrize("name", FIELDS)
    @pytest.mark.parametrize(
        ("method", "mask", "passes"),
        [
            ("cc_sam", is_classifier, None),
            ("cc_sam", None, jaxlt.Blocks()),
            ("imb_sam", None, None),
            ("imb_sam", None, jaxlt.Blocks()),
        ],
    )
    def test_of_a_method(self, name, method, mask, passes):
        fields, message = FIELDS[name]
        params, tx = initial_params(), METHODS[method](mask=mask)
        obj = factored(*small_batch(2), passes, **fields)
        with pytest.raises(ValueError, match=f"^{message}"):
            jax.eval_shape(lambda p: tx.update(p, tx.init(p), p, class_losses_fn=obj), params)
