"""Files of a trained network for other programs."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from jaxlt.errors import UsageError
from jaxlt.evaluation import Predictor, export
from jaxlt.runs.model_description import ModelDescription
from jaxlt.runs.rebuilt_network import build_network

WITH_JAX_ALONE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("flax", "jaxlt", "orbax", "optax", "PIL", "tensorflow"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
import jax, numpy as np
from jax import export
exported = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
with np.load(sys.argv[2]) as images:
    found = {name: exported.call(images[name])["probabilities"] for name in images}
np.savez(sys.argv[3], **found)
"""


def predictor_of(model="mlp", shape=(8, 8, 3), **fields):
    """An untrained network with random biases, four classes."""
    channels = shape[-1]
    description = ModelDescription(
        model=model,
        num_classes=4,
        classifier="linear",
        precision=fields.pop("precision", "float32"),
        image_shape=shape,
        mean=(0.4, 0.5, 0.6)[:channels],
        std=(0.2, 0.3, 0.25)[:channels],
        class_names=("cat", "barn owl", "dog", "été"),
        **fields,
    )
    network = build_network(description)
    variables = network.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False)
    kept = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    return Predictor(description, jax.tree.map(lambda leaf: leaf + 0.01, kept))


def random_images(*shapes):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


def by_hand(predictor, images):
    """Probabilities (B, 4) of pixels of the network's shape, normalized in float64."""
    mean, std = predictor.description.mean, predictor.description.std
    normalized = ((images / 255 - np.array(mean)) / np.array(std)).astype(np.float32)
    applied = predictor.network.apply(predictor.variables, normalized, train=False)
    logits = np.asarray(applied, np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def pillow(image, height, width):
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def test_stablehlo_needs_jax_alone_and_takes_any_number_and_size(tmp_path):
    predictor = predictor_of()
    one, five, large = random_images((1, 8, 8, 3), (5, 8, 8, 3), (2, 31, 50, 3))
    check = export.export_stablehlo(predictor, tmp_path / "model", [five[0], large[0]])
    assert check.images == 2
    assert check.probability < 1e-5
    np.savez(tmp_path / "images.npz", one=one, five=five, large=large)
    files = [tmp_path / name for name in ("model", "images.npz", "found.npz")]
    subprocess.run([sys.executable, "-c", WITH_JAX_ALONE, *files], check=True, cwd=tmp_path)
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_allclose(found["one"], by_hand(predictor, one), atol=1e-5)
        np.testing.assert_allclose(found["five"], by_hand(predictor, five), atol=1e-5)
        resized = np.stack([pillow(image, 8, 8) for image in large])
        # A gray level may be another, so the probabilities agree less closely.
        np.testing.assert_allclose(found["large"], by_hand(predictor, resized), atol=2e-3)
    described = json.loads((tmp_path / "model.json").read_text())
    assert described["class_names"] == ["cat", "barn owl", "dog", "été"]


@pytest.mark.parametrize("size", [(32, 24), (50, 77), (300, 200), (10, 11), (1, 1), (9, 400)])
@pytest.mark.parametrize("resize", ["stretch", "center_crop"])
def test_images_are_resized_as_pillow_does(resize, size):
    predictor = predictor_of(shape=(32, 32, 3), resize=resize)
    (image,) = random_images((*size, 3))
    if resize == "stretch":
        expected = pillow(image, 32, 32)
    else:
        height, width = (36 * side // min(size) for side in size)
        top, left = round((height - 32) / 2), round((width - 32) / 2)
        expected = pillow(image, height, width)[top : top + 32, left : left + 32]
    found = np.asarray(export._fitted(predictor, jnp.asarray(image)[jnp.newaxis]))[0]
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= (1 if resize == "stretch" else 2)
    assert (difference > 0).mean() < 0.15


@pytest.mark.parametrize(
    ("model", "shape", "fields"),
    [
        ("small_conv", (12, 8, 1), {}),
        *(
            pytest.param(*network, marks=pytest.mark.soak)
            for network in (
                ("resnet8", (16, 16, 3), {"precision": "bfloat16", "resize": "center_crop"}),
                ("small_vit", (8, 8, 3), {}),
                ("random:tiny", (16, 16, 3), {}),
            )
        ),
    ],
)
def test_every_kind_of_network_has_a_free_batch(tmp_path, model, shape, fields):
    predictor = predictor_of(model, shape, **fields)
    images = random_images(shape)
    check = export.export_stablehlo(predictor, tmp_path / "model", images)
    assert check.probability < 0.01


def test_safetensors_have_a_name_for_each_tensor(tmp_path):
    predictor = predictor_of("resnet8", (8, 8, 3))
    images = random_images((8, 8, 3), (9, 20, 3))
    check = export.export_safetensors(predictor, tmp_path / "model", images)
    assert check == (0.0, 0.0, 2)
    leaves, _ = jax.tree_util.tree_flatten_with_path(predictor.variables)
    expected = {".".join(key.key for key in path): leaf for path, leaf in leaves}
    with safe_open(tmp_path / "model", "np") as file:
        assert set(file.keys()) == set(expected)
        assert "params.classifier.kernel" in expected
        for name, leaf in expected.items():
            np.testing.assert_array_equal(file.get_tensor(name), leaf)
        described = json.loads(file.metadata()["jaxlt"])
    assert described["class_names"] == ["cat", "barn owl", "dog", "été"]
    assert described["mean"] == [0.4, 0.5, 0.6]


@pytest.mark.parametrize("write", [export.export_stablehlo, export.export_safetensors])
def test_other_predictions_than_the_runs_leave_no_file(tmp_path, monkeypatch, write):
    predictor = predictor_of()
    (tmp_path / "model").write_text("old jaxlt")
    logits = predictor.logits
    monkeypatch.setattr(predictor, "logits", lambda images: logits(images)[:, ::-1])
    with pytest.raises(UsageError, match=r"predictions must be the run's own .*nothing is written"):
        write(predictor, tmp_path / "model", random_images((8, 8, 3)))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model").read_text() == "old jaxlt"


@pytest.mark.parametrize("write", [export.export_stablehlo, export.export_safetensors])
@pytest.mark.parametrize("name", ["cat.png", "other.safetensors"])
def test_what_no_export_wrote_stays(tmp_path, write, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"new file or one that an export wrote, got .*; give"):
        write(predictor_of(), tmp_path / name, random_images((8, 8, 3)))
    assert (tmp_path / name).read_bytes() == b"mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_export_takes_the_place_of_an_earlier_one(tmp_path):
    for write in (export.export_safetensors, export.export_stablehlo) * 2:
        write(predictor_of(), tmp_path / write.__name__, random_images((8, 8, 3)))


def test_onnx_without_its_converter_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"must be installed for ONNX.*'jaxlt\[export\]'"):
        export.export_onnx(predictor_of(), tmp_path / "model", random_images((8, 8, 3)))


@pytest.mark.parametrize("model", ["mlp", "small_conv", "resnet8", "resnet10"])
def test_onnx_has_a_free_batch_and_the_names(tmp_path, model):
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    predictor = predictor_of(model, (32, 32, 3))
    images = np.stack(random_images(*[(32, 32, 3)] * 3))
    export.export_onnx(predictor, tmp_path / "model.onnx", images)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for batch in (images, images[:1]):
        (found,) = session.run(["probabilities"], {"images": batch})
        np.testing.assert_allclose(found, by_hand(predictor, batch), atol=1e-5)
    described = json.loads(session.get_modelmeta().custom_metadata_map["jaxlt"])
    assert described["class_names"][1] == "barn owl"
