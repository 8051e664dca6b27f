"""One source for the version, `jaxlt.__version__`, and for the oldest ones of other packages."""

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.version import Version

import jaxlt
from experiments import command_line

ROOT = Path(__file__).parents[1]


def test_the_installed_package_has_it():
    assert importlib.metadata.version("jaxlt") == jaxlt.__version__


def test_programs_print_it(capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.parse(object, "program", "", default=object(), args=["--version"])
    assert not stop.value.code
    assert capsys.readouterr().out == f"jaxlt {jaxlt.__version__}\n"


def test_documents_say_it():
    (cited,) = re.findall(r"version = \{(.*)\}", (ROOT / "README.md").read_text())
    changes = (ROOT / "jaxlt" / "CHANGELOG.md").read_text()
    newest, *_ = re.findall(r"^## (?:\[Unreleased\]: )?(\S+)", changes, re.MULTILINE)
    assert cited == newest == jaxlt.__version__


def test_the_readmes_oldest_versions_are_those_that_pyproject_allows():
    text = re.sub(r"\s+", " ", (ROOT / "README.md").read_text())
    (oldest,) = re.findall(r"the oldest versions [^(]*\(([^)]*)\)", text)
    bounds = dict(re.findall(r'"([\w-]+)>=([\d.]+)', (ROOT / "pyproject.toml").read_text()))
    said = dict(one.split() for one in oldest.split(", "))
    assert {"jax", "flax", "optax", "numpy", "tensorflow-cpu"} <= set(said)
    for name, version in said.items():
        assert Version(version) == Version(bounds[name])
