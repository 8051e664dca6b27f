import jax
import numpy as np
import pytest
from clip_snapshots import GOLDEN, write_golden_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from jaxlt.errors import UsageError
from jaxlt.models.clip.snapshot import (
    _from_hub,
    find_snapshot,
    interpolate_positions,
    load_clip,
)

POSITIONS = "vision_model.embeddings.position_embedding.weight"
FC1 = "text_model.encoder.layers.1.mlp.fc1.weight"
PATCHES = "vision_model.embeddings.patch_embedding.weight"


def _assert_same_params(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)


def test_other_spellings_and_buffers_of_old_checkpoints_do(tmp_path):
    plain = load_clip(write_golden_snapshot(tmp_path / "plain"))

    def age(tensors):
        for leaf in ("weight", "bias"):
            misspelled = tensors.pop(f"vision_model.pre_layrnorm.{leaf}")
            tensors[f"vision_model.pre_layernorm.{leaf}"] = misspelled
        tensors["vision_model.embeddings.position_ids"] = np.arange(17)[None]
        tensors["text_model.embeddings.position_ids"] = np.arange(16)[None]

    _assert_same_params(load_clip(write_golden_snapshot(tmp_path / "old", tensors=age)), plain)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.pth"])
def test_pytorchs_own_format_does(tmp_path, name):
    torch = pytest.importorskip("torch")
    plain = load_clip(write_golden_snapshot(tmp_path))
    tensors = load_file(GOLDEN / "clip.safetensors")
    torch.save({key: torch.from_numpy(x) for key, x in tensors.items()}, tmp_path / name)
    (tmp_path / "model.safetensors").unlink()
    _assert_same_params(load_clip(tmp_path), plain)


def test_half_precision_is_widened(tmp_path):
    def halve(tensors):
        tensors.update({name: x.astype(np.float16) for name, x in tensors.items()})

    params = load_clip(write_golden_snapshot(tmp_path, tensors=halve)).params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    kernel = params["visual_projection"]["kernel"]
    stored = load_file(GOLDEN / "clip.safetensors")["visual_projection.weight"]
    np.testing.assert_array_equal(kernel, stored.T.astype(np.float16))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.pop(FC1), f"must hold the network's tensor {FC1}, got none"),
        (
            lambda t: t.update({FC1: t[FC1][:, :-1].copy()}),
            rf"tensor {FC1} in .* must be of shape \(24, 48\) .* got \(23, 48\)",
        ),
        (
            lambda t: t.update({PATCHES: t[PATCHES][0].copy()}),
            rf"tensor {PATCHES} in .* must be of shape \(192, 32\) .* got \(8, 8, 3\)",
        ),
        (
            lambda t: t.update({POSITIONS: t[POSITIONS][:-1].copy()}),
            rf"tensor {POSITIONS} in .* must be of shape \(17, 32\) .* got \(16, 32\)",
        ),
        (
            lambda t: t.update({"vision_model.lora.weight": t[FC1]}),
            "must hold this network's tensors alone, .*the first of them vision_model.lora.weight",
        ),
    ],
)
def test_tensors_of_another_network_are_refused(tmp_path, change, expected):
    write_golden_snapshot(tmp_path, tensors=change)
    with pytest.raises(UsageError, match=expected) as error:
        load_clip(tmp_path)
    assert str(tmp_path / "model.safetensors") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_directory_without_weights_is_refused(tmp_path):
    write_golden_snapshot(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    expected = (
        f"{tmp_path} must have one of model.safetensors, pytorch_model.bin, pytorch_model.pth"
    )
    with pytest.raises(UsageError, match=expected):
        load_clip(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UsageError, match=r"config\.json must be a readable JSON file"):
        load_clip(tmp_path)


def test_another_image_size_interpolates_positions_alone(tmp_path):
    write_golden_snapshot(tmp_path)
    own, larger = load_clip(tmp_path), load_clip(tmp_path, image_size=48)
    assert larger.config.vision.image_size == 48
    positions = own.params["vision_model"]["embeddings"].pop("position_embedding")
    expected = interpolate_positions(positions, 6)
    found = larger.params["vision_model"]["embeddings"].pop("position_embedding")
    np.testing.assert_array_equal(found, expected)
    _assert_same_params(own, larger)
    with pytest.raises(
        UsageError, match=r"image_size must be a multiple of patch_size, .*, got 50"
    ):
        load_clip(tmp_path, image_size=50)


@pytest.mark.parametrize(("side", "grid"), [(7, 8), (4, 11), (14, 7), (3, 2), (1, 3), (5, 1)])
def test_positions_are_interpolated_as_pytorch_does(side, grid):
    torch = pytest.importorskip("torch")
    positions = np.random.default_rng(0).normal(size=(1 + side**2, 5)).astype(np.float32)
    square = torch.from_numpy(positions[1:].reshape(1, side, side, 5)).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(
        square, size=(grid, grid), mode="bicubic", align_corners=False
    )
    ours = interpolate_positions(positions, grid)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours[0], positions[0])
    theirs = resized.permute(0, 2, 3, 1).reshape(-1, 5).numpy()
    np.testing.assert_allclose(ours[1:], theirs, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(side=st.integers(1, 9), grid=st.integers(1, 12))
def test_interpolation_keeps_constants_and_a_grid_of_the_same_size(side, grid):
    constant = np.full((1 + side**2, 2), 3.0, np.float32)
    np.testing.assert_allclose(interpolate_positions(constant, grid), 3.0, rtol=1e-6)
    positions = np.random.default_rng(side).normal(size=(1 + side**2, 2)).astype(np.float32)
    np.testing.assert_array_equal(interpolate_positions(positions, side), positions)


@pytest.fixture
def offline_cache(monkeypatch, tmp_path):
    """The hub's library without a network, and with an empty cache."""
    from huggingface_hub import constants

    _from_hub.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def _cached(cache, weights="model.safetensors"):
    """Lays a snapshot down as the library does after a download."""
    repository = cache / "models--someone--tiny-clip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abcd")
    directory = write_golden_snapshot(repository / "snapshots" / "0123abcd")
    (directory / "model.safetensors").rename(directory / weights)
    return directory


# read_tensors goes by a file's content, so the name alone makes it another format here.
@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_name_is_found_in_the_cache(offline_cache, weights):
    directory = _cached(offline_cache, weights)
    assert find_snapshot("someone/tiny-clip") == directory
    loaded = load_clip("someone/tiny-clip")
    assert loaded.directory == directory
    assert loaded.config.projection_dim == 12


def test_a_name_without_weights_is_refused(offline_cache):
    _cached(offline_cache, "flax_model.msgpack")
    with pytest.raises(
        UsageError, match=r"someone/tiny-clip must have one of model\.safetensors, "
    ):
        load_clip("someone/tiny-clip")


@pytest.mark.parametrize("name", ["someone/other-clip", "no/such/directory", "bad name"])
def test_a_name_that_is_nowhere_is_refused(offline_cache, name):
    with pytest.raises(UsageError, match="must be a directory, or a name that") as error:
        load_clip(name)
    assert str(name) in str(error.value)
    assert "\n" not in str(error.value)
