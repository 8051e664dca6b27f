from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlt.errors import UsageError
from jaxlt.models import CifarResNet, load_torch_weights

GOLDEN = Path(__file__).parents[2] / "golden" / "models"
HEADS = {"cifar_resnet8": "linear", "cifar_resnet8_normed": "cosine"}


def _model(name="cifar_resnet8", **changes):
    return CifarResNet(
        **{"num_classes": 10, "blocks": (1, 1, 1), "classifier": HEADS[name], **changes}
    )


def _shapes(model):
    images = jnp.zeros((1, 32, 32, 3))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("train", [False, True])
def test_logits_match_pytorch(name, train):
    model = _model(name)
    variables = load_torch_weights(GOLDEN / f"{name}.safetensors", _shapes(model))
    golden = np.load(GOLDEN / f"{name}_io.npz")
    logits, _ = model.apply(variables, golden["images_nhwc"], train=train, mutable=["batch_stats"])
    expected = golden["logits_train_mode" if train else "logits_eval"]
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_a_square_linear_head_is_transposed_too(tmp_path):
    tensors = load_file(GOLDEN / "cifar_resnet8.safetensors")
    tensors["linear.weight"] = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    tensors["linear.bias"] = np.zeros(64, np.float32)
    save_file(tensors, tmp_path / "square.safetensors")
    variables = load_torch_weights(tmp_path / "square.safetensors", _shapes(_model(num_classes=64)))
    kernel = variables["params"]["classifier"]["kernel"]
    np.testing.assert_array_equal(kernel, tensors["linear.weight"].T)


def _one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_classes": 9}, r"linear\.\w+ in .* must be of shape \(9,\) .* got \(10,\)"),
        ({"blocks": (1, 2, 1)}, r"must hold the network's tensor layer2\.1\."),
        ({"blocks": (1, 1, 0)}, r"got 10 others, .*first of them layer3\.0\.bn1\.bias"),
        (
            {"classifier": "cosine"},
            r"linear\.weight in .* must be of shape \(64, 10\) .* got \(10, 64\)",
        ),
    ],
)
def test_weights_of_another_network_are_refused(changes, expected):
    path = GOLDEN / "cifar_resnet8.safetensors"
    template = _shapes(_model(**changes))
    if changes == {"blocks": (1, 1, 0)}:
        # Keep the head's width, so that the surplus block alone is wrong.
        template["params"]["classifier"]["kernel"] = jax.ShapeDtypeStruct((64, 10), jnp.float32)
    with pytest.raises(UsageError, match=expected) as error:
        load_torch_weights(path, template)
    assert str(path) in _one_line(error)


@pytest.mark.parametrize("content", [b"", b"garbled", b"\xff" * 100, None])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="must be a readable safetensors file") as error:
        load_torch_weights(path, _shapes(_model()))
    assert str(path) in _one_line(error)


def test_truncated_and_directory_paths_are_refused(tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes((GOLDEN / "cifar_resnet8.safetensors").read_bytes()[:-100])
    for wrong in (path, tmp_path):
        with pytest.raises(UsageError, match="must be a readable safetensors file"):
            load_torch_weights(wrong, _shapes(_model()))
