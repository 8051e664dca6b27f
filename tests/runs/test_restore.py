"""What checkpoints say of their arrays: some of it would end the interpreter."""

import json
import shutil

import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest
import tensorstore as ts

from jaxlt.runs.restore import stored_arrays


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("state") / "saved"
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, {"a": {"bias": jnp.ones(3)}, "b": jnp.zeros((2, 4), jnp.bfloat16)})
    return path


@pytest.fixture
def saved(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "saved")


def change(path, **fields):
    """Writes into the database what Zarr keeps of an array."""
    spec = {"driver": "ocdbt", "base": f"file://{path}/"}
    database, key = ts.KvStore.open(spec).result(), b"a.bias/.zarray"
    described = json.loads(database.read(key).result().value) | fields
    database.write(key, json.dumps(described).encode()).result()


def test_shapes_are_those_saved(saved):
    arrays = stored_arrays(saved)
    assert arrays["a"]["bias"].shape == (3,)
    assert arrays["b"].shape == (2, 4)


def test_a_vast_shape_is_told_and_not_believed(saved):
    change(saved, shape=[2**60])
    assert stored_arrays(saved)["a"]["bias"].shape == (2**60,)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"chunks": [2**34]}, "must be in pieces within"),
        ({"chunks": [1, 1]}, "zip"),
        ({"dtype": [["x", "<f4", [2**33]]]}, "must be of numbers"),
        ({"dtype": "|V2000000000"}, "must be of numbers"),
        ({"dtype": "|S2000000000"}, "must be of numbers"),
        ({"chunks": [0]}, "is damaged"),
        ({"fill_value": "x"}, "is damaged"),
    ],
)
def test_what_no_array_of_ours_is_of_is_refused_before_it_is_opened(saved, fields, words):
    change(saved, **fields)
    with pytest.raises(ValueError, match=words):
        stored_arrays(saved)


@pytest.mark.parametrize("field", [{"use_ocdbt": False}, {"use_zarr3": True}])
def test_other_formats_which_nothing_here_checks_are_refused(saved, field):
    values = json.loads((saved / "_METADATA").read_text())
    (saved / "_METADATA").write_text(json.dumps({**values, **field}))
    with pytest.raises(ValueError, match="not stored as Zarr 2"):
        stored_arrays(saved)


def test_checkpoints_that_say_nothing_of_their_database_are_known_by_its_manifest(saved):
    """So are those of Orbax before 0.12."""
    values = json.loads((saved / "_METADATA").read_text())
    values.pop("use_ocdbt", None)
    (saved / "_METADATA").write_text(json.dumps(values))
    assert stored_arrays(saved)
    (saved / "manifest.ocdbt").unlink()
    with pytest.raises(ValueError, match="not stored as Zarr 2"):
        stored_arrays(saved)
