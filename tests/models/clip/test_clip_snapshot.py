import http.server
import json
import socket
import threading
from typing import ClassVar

import jax
import numpy as np
import pytest
from clip_snapshots import GOLDEN, write_golden_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from jaxlt.errors import UsageError
from jaxlt.files import hub_answer
from jaxlt.models.clip.image_encoders import encoder_digest
from jaxlt.models.clip.snapshot import find_snapshot, interpolate_positions, load_clip
from jaxlt.models.weights import hub

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


@pytest.mark.parametrize(("prefix", "projected"), [("", True), ("", False), ("bare", False)])
def test_the_image_encoder_alone_does(tmp_path, prefix, projected):
    """`CLIPVisionModelWithProjection` and `CLIPVisionModel`, with the module's name or without."""
    plain = load_clip(write_golden_snapshot(tmp_path / "plain"))

    def keep(tensors):
        kept = {name: x for name, x in tensors.items() if name.startswith("vision_model.")}
        if prefix:
            kept = {name.removeprefix("vision_model."): x for name, x in kept.items()}
        if projected:
            kept["visual_projection.weight"] = tensors["visual_projection.weight"]
        tensors.clear()
        tensors.update(kept)

    def flatten(config):
        sizes = {**config.pop("vision_config"), "projection_dim": config["projection_dim"]}
        config.clear()
        config.update(sizes, model_type="clip_vision_model")

    for name, change in (("flat", flatten), ("nested", None)):
        found = load_clip(write_golden_snapshot(tmp_path / name, tensors=keep, config=change))
        assert found.config.vision == plain.config.vision
        assert found.config.projection_dim == plain.config.projection_dim
        wanted = ["vision_model", *["visual_projection"] * projected]
        assert sorted(found.params) == wanted
        for part in wanted:
            jax.tree.map(np.testing.assert_array_equal, found.params[part], plain.params[part])


def shard(directory, parts=2):
    """Spreads the weights over files, as `save_pretrained` does with large ones."""
    tensors = load_file(directory / "model.safetensors")
    names = sorted(tensors)
    weight_map = {}
    for part in range(parts):
        file = f"model-0000{part + 1}-of-0000{parts}.safetensors"
        mine = names[part::parts]
        save_file({name: tensors[name] for name in mine}, directory / file)
        weight_map |= dict.fromkeys(mine, file)
    (directory / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def test_weights_in_parts_do(tmp_path):
    plain = load_clip(write_golden_snapshot(tmp_path / "plain"))
    parts = shard(write_golden_snapshot(tmp_path / "parts"))
    _assert_same_params(load_clip(parts), plain)
    before = encoder_digest(f"clip:{parts}")
    part = parts / "model-00002-of-00002.safetensors"
    tensors = load_file(part)
    first = min(tensors)
    save_file({**tensors, first: tensors[first] + 1}, part)
    assert encoder_digest(f"clip:{parts}") != before
    part.unlink()
    with pytest.raises(UsageError, match=r"model-00002-of-00002\.safetensors must be a readable"):
        load_clip(parts)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ('{"weight_map": {"a": "../other.safetensors"}}', "must name files beside it, got '../o"),
        ('{"weight_map": {"a": 3}}', "must name files beside it, got 3"),
        ('{"weight_map": ["a"]}', "must be an index of weights"),
        ("{}", "must be an index of weights"),
        ("[", "must be an index of weights"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, index, words):
    write_golden_snapshot(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UsageError, match=words) as error:
        load_clip(tmp_path)
    assert "\n" not in str(error.value)


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    write_golden_snapshot(tmp_path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 345\n"
    (tmp_path / "model.safetensors").write_text(pointer)
    words = r"model\.safetensors must hold weights, but is a Git LFS pointer, .*; run git lfs pull"
    with pytest.raises(UsageError, match=words):
        load_clip(tmp_path)


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
    expected = f"{tmp_path} must have one of model.safetensors, .*, pytorch_model.pth, got none"
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

    hub.download.cache_clear()
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


@pytest.fixture
def silent_hub(monkeypatch, tmp_path):
    """A server that takes connections and says nothing, in place of the hub."""
    from huggingface_hub import constants

    hub.download.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


def test_a_hub_that_does_not_answer_is_not_waited_for(silent_hub, monkeypatch):
    assert hub_answer._DEADLINE <= 10
    monkeypatch.setattr(hub_answer, "_DEADLINE", 0.5)
    # Whichever of two clocks is first.
    words = r"(no answer in 0\.5 seconds|timed out); .*put config\.json and model\.safetensors of"
    with pytest.raises(UsageError, match=words) as error:
        find_snapshot("someone/tiny-clip")
    assert "\n" not in str(error.value)


class _Hub(http.server.BaseHTTPRequestHandler):
    """The two answers of the hub that a download needs, and the files."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        name = self.path.partition("?")[0].rpartition("/")[2]
        if "/tree/" in self.path:
            sizes = {file: len(content) for file, content in self.files.items()}
            tree = [
                {"type": "file", "path": file, "size": size, "oid": "cd" * 20}
                for file, size in sizes.items()
            ]
            content = json.dumps(tree).encode()
        elif "/api/models/" in self.path:
            siblings = [{"rfilename": file} for file in self.files]
            content = json.dumps(
                {"id": "someone/tiny-clip", "sha": "ab" * 20, "siblings": siblings}
            ).encode()
        else:
            content = self.files.get(name)
        self.send_response(404 if content is None else 200)
        content = content or b""
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{name}-{len(content)}"')
        self.send_header("X-Repo-Commit", "ab" * 20)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def speaking_hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    hub.download.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield
        server.shutdown()


def test_weights_in_parts_come_from_the_hub_once(speaking_hub, monkeypatch, tmp_path):
    parts = shard(write_golden_snapshot(tmp_path / "parts"))
    files = {file.name: file.read_bytes() for file in parts.iterdir()}
    # What is not asked for is not fetched.
    monkeypatch.setattr(_Hub, "files", {**files, "pytorch_model.bin": b"", "README.md": b""})
    found = find_snapshot("someone/tiny-clip")
    assert {file.name for file in found.iterdir()} == set(files)
    _assert_same_params(load_clip(found), load_clip(parts))
    monkeypatch.setattr(_Hub, "files", {})
    hub.download.cache_clear()
    assert find_snapshot("someone/tiny-clip") == found
