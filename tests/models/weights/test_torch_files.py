"""Files of torch.save: what is read, and that nothing in a file is run or believed."""

import collections
import io
import json
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from jaxlt.errors import UsageError
from jaxlt.models.weights.torch_files import read_tensors

GOLDEN = Path(__file__).parents[2] / "golden" / "models" / "cifar_resnet8.safetensors"
STORAGES = {
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(jnp.bfloat16): "BFloat16Storage",
}


# The pickle is written opcode by opcode, as the torch that would write it need not be there.
def plain(value):
    return pickle.dumps(value, 2)[2:-1]


def named(module, name):
    return b"c%s\n%s\n" % (module.encode(), name.encode())


def call(function, *arguments):
    return function + b"(" + b"".join(arguments) + b"tR"


def storage(key, kind, count):
    return (
        b"("
        + b"".join(map(plain, ("storage",)))
        + named("torch", kind)
        + b"".join(map(plain, (key, "cpu", count)))
        + b"tQ"
    )


EMPTY = call(named("collections", "OrderedDict"))
REBUILD = named("torch._utils", "_rebuild_tensor_v2")


def tensor(stored, shape, strides, offset=0):
    return call(REBUILD, stored, *map(plain, (offset, shape, strides, False)), EMPTY)


def mapping(entries):
    filled = b"".join(plain(name) + value for name, value in entries.items())
    return EMPTY + b"(" + filled + b"u"


def one_tensor(count=6, shape=(2, 3), strides=(3, 1), offset=0, kind="FloatStorage"):
    return mapping({"weight": tensor(storage("0", kind, count), shape, strides, offset)})


def archive(program, storages=None, *, compression=zipfile.ZIP_STORED, **entries):
    """A zip as torch.save writes it, of a pickle's body and storages by their keys."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + program + b".")
        for name, entry in entries.items():
            file.writestr(f"archive/{name}", entry)
        for key, numbers in (storages or {}).items():
            file.writestr(f"archive/data/{key}", numbers)
    return content.getvalue()


SIX = {"0": np.arange(6, dtype=np.float32).tobytes()}


def read(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    return read_tensors(path)


def refusal(tmp_path, content):
    with pytest.raises(UsageError) as caught:
        read(tmp_path, content)
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path / "weights.pth") in message
    return message


@pytest.mark.parametrize("dtype", STORAGES, ids=str)
def test_tensors_are_views_of_storages(tmp_path, dtype):
    numbers = np.arange(24).astype(dtype)
    stored = storage("7", STORAGES[dtype], 24)
    entries = {
        "whole": tensor(stored, (2, 3, 4), (12, 4, 1)),
        "transposed": tensor(stored, (4, 3, 2), (1, 4, 12)),
        "part": tensor(stored, (2, 2), (12, 1), 3),
        "scalar": tensor(stored, (), (), 5),
        "none": tensor(stored, (0, 3), (3, 1), 24),
    }
    found = read(tmp_path, archive(mapping(entries), {"7": numbers.tobytes()}))
    whole = numbers.reshape(2, 3, 4)
    expected = {
        "whole": whole,
        "transposed": whole.T,
        "part": numbers[[[3, 4], [15, 16]]],
        "scalar": numbers[5],
        "none": np.zeros((0, 3), dtype),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == dtype
        np.testing.assert_array_equal(found[name], value)


def test_a_state_dict_within_a_checkpoint_of_several_devices(tmp_path):
    inner = mapping({"module.a": tensor(storage("0", "FloatStorage", 6), (6,), (1,))})
    outer = mapping({"epoch": plain(90), "best": plain(0.5), "state_dict": inner})
    found = read(tmp_path, archive(outer, SIX, version=b"3\n", byteorder=b"little"))
    np.testing.assert_array_equal(found["a"], np.arange(6))


def test_what_pytorch_itself_writes(tmp_path):
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2)
    ).to(memory_format=torch.channels_last)
    state = network.state_dict()
    path = tmp_path / "weights.pth"
    for saved in (
        state,
        {"state_dict": state, "epoch": 3, "optimizer": {"state": {}, "lr": 0.1}},
        {"model": {**state, **dict(network.named_parameters())}, "epoch": 3},
        torch.nn.DataParallel(network).state_dict(),
        collections.OrderedDict((name, value.half()) for name, value in state.items()),
    ):
        torch.save(saved, path)
        found = read_tensors(path)
        assert found.keys() == state.keys()
        for name, value in state.items():
            np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-3)
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert "got the older format" in refusal(tmp_path, path.read_bytes())


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float8_e4m3fn", "uint16"])
def test_numbers_of_safetensors_keep_their_type(tmp_path, dtype):
    numbers = np.arange(6).reshape(2, 3).astype(jnp.dtype(dtype))
    save_file({"a": numbers}, tmp_path / "x.safetensors")
    found = read_tensors(tmp_path / "x.safetensors")["a"]
    assert found.dtype == numbers.dtype
    np.testing.assert_array_equal(found, numbers)


def test_safetensors_of_an_unknown_type_are_refused(tmp_path):
    header = json.dumps({"a": {"dtype": "F8_E8M0", "shape": [2], "data_offsets": [0, 2]}}).encode()
    message = refusal(tmp_path, struct.pack("<Q", len(header)) + header + b"ab")
    assert "weights.pth must be of F64, " in message
    assert message.endswith("got F8_E8M0")


def test_safetensors_are_read_too_and_their_prefix_dropped(tmp_path):
    tensors = load_file(GOLDEN)
    save_file({f"module.{name}": x for name, x in tensors.items()}, tmp_path / "x.safetensors")
    found = read_tensors(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()


class _Calls:
    """Pickles to a call of a function of Python's own."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("function", ["os.system", "builtins.eval", "builtins.getattr"])
def test_a_file_that_would_run_something_is_refused(tmp_path, function, protocol):
    marker = tmp_path / "marker"
    name = function.split(".")[1]
    calls = {
        "os.system": _Calls(os.system, f"touch {marker}"),
        "builtins.eval": _Calls(eval, f"open({str(marker)!r}, 'w')"),
        "builtins.getattr": _Calls(getattr, 1, "real"),
    }
    program = pickle.dumps({"weight": calls[function]}, protocol)
    # The file is a trap indeed.
    pickle.loads(program)
    assert marker.exists() == (name != "getattr")
    marker.unlink(missing_ok=True)
    content = archive(program[2:-1], SIX)
    message = refusal(tmp_path, content)
    assert re.search(rf"got the global '\w+\.{name}'", message)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("collections", "OrderedDict.__init__"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
        ("jaxlt.models.weights.torch_files", "read_tensors"),
        ("numpy", "ndarray"),
    ],
)
def test_no_other_global_is_known(tmp_path, module, name):
    message = refusal(tmp_path, archive(named(module, name), SIX))
    assert f"got the global '{module}.{name}'" in message


@pytest.mark.parametrize(
    "program",
    [
        # Attributes set on a function, on a type of storage and on a state dict's class.
        REBUILD + plain((None, {"__defaults__": (1,)})) + b"b",
        named("torch", "FloatStorage") + plain({"name": "LongStorage"}) + b"b",
        named("collections", "OrderedDict") + plain((None, {"__init__": 1})) + b"b",
        # Calls of what is no function, or with other arguments.
        call(named("torch", "FloatStorage"), plain(3)),
        call(named("collections", "OrderedDict"), plain([("a", 1)])),
        call(REBUILD, plain(1)),
        call(REBUILD, *map(plain, (1, 0, (1,), (1,)))),
        # References that are no storage.
        plain(("module", "torch", "0", "cpu", 1)) + b"Q",
        plain(3) + b"Q",
        b"(" + plain("storage") + REBUILD + b"".join(map(plain, ("0", "cpu", 6))) + b"tQ",
        storage("1", "FloatStorage", 6),
        storage("../data.pkl", "FloatStorage", 6),
        b"",
        b"\x8b" + struct.pack("<i", -5),
    ],
)
def test_damaged_pickles_are_refused(tmp_path, program):
    refusal(tmp_path, archive(program, SIX))
    np.testing.assert_array_equal(
        read(tmp_path, archive(one_tensor(), SIX))["weight"], np.arange(6).reshape(2, 3)
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"count": 7}, "storage 0 in .* must be 7 numbers of float32, got 24 bytes"),
        ({"count": 5}, "storage 0 in .* must be 5 numbers"),
        ({"count": 2**62}, "must be 4611686018427387904 numbers"),
        ({"kind": "DoubleStorage"}, "must be 6 numbers of float64"),
        ({"shape": (2, 4)}, "must lie within their storage of 6 numbers"),
        ({"offset": 1}, "got offset 1, shape"),
        ({"offset": -1}, "got offset -1"),
        ({"strides": (-3, 1)}, r"strides \(-3, 1\)"),
        ({"shape": (2, -3)}, r"shape \(2, -3\)"),
        ({"strides": (3,)}, r"strides \(3,\)"),
        ({"strides": (3, 1.0)}, r"strides \(3, 1.0\)"),
        ({"shape": (2**40, 1), "strides": (2**40, 1)}, "must lie within"),
        ({"shape": (0,), "strides": (1,), "offset": 7}, "got offset 7"),
    ],
)
def test_sizes_and_strides_that_lie_are_refused(tmp_path, fields, words):
    assert re.search(words, refusal(tmp_path, archive(one_tensor(**fields), SIX)))


def test_other_archives_are_refused(tmp_path):
    good = one_tensor()
    for content, words in (
        (archive(good, SIX, compression=zipfile.ZIP_DEFLATED), "must not be compressed"),
        (archive(good, SIX, byteorder=b"big"), "must be little-endian"),
        (archive(good, {}), "must be a whole file of torch.save"),
        (archive(good, SIX, **{"code/data.pkl": b""}), "one entry data.pkl, .* got 2"),
        (archive(plain(3)), "must hold a state dict, got a int"),
        (archive(mapping({"epoch": plain(3)})), "got a int under 'epoch'"),
        (archive(mapping({"state_dict": mapping({"a": plain("b")})})), "got a str under 'a'"),
    ):
        assert re.search(words, refusal(tmp_path, content))


@settings(deadline=None)
@given(data=st.data())
def test_damage_anywhere_gives_tensors_or_one_line(tmp_path_factory, data):
    content = bytearray(archive(one_tensor(), SIX))
    cut = data.draw(st.integers(0, len(content)))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(0, 255))
    directory = tmp_path_factory.mktemp("damaged")
    try:
        assert read(directory, bytes(content[:cut]))["weight"].size <= 6
    except UsageError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    content = archive(one_tensor(), SIX)
    for length in range(len(content)):
        refusal(tmp_path, content[:length])
