"""Docstrings of what packages export: examples give what they show, arguments are explained."""

import ast
import builtins
import doctest
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest

EXPORTING = (
    "",
    "losses",
    "data",
    "models",
    "training",
    "evaluation",
    "analysis",
    "recipes",
    "nnx",
)


def _exported():
    """What the packages export, by its name; lazy names too."""
    for package in EXPORTING:
        module = importlib.import_module(f"jaxlt.{package}".rstrip("."))
        for name in (*vars(module), *getattr(module, "_LATER", ())):
            value = getattr(module, name)
            if getattr(value, "__module__", "").startswith("jaxlt") and not name.startswith("_"):
                yield f"{module.__name__}.{name}", value


# Of classes those of the core alone, since networks and parts of recipes are made by name. The
# loop's example is a whole program: jaxlt/README.md has it, and tests/test_readme.py runs it.
PUBLIC = {
    name: value
    for name, value in _exported()
    if (inspect.isfunction(value) and name != "jaxlt.training.train")
    or (inspect.isclass(value) and name.rpartition(".")[0] in ("jaxlt", "jaxlt.losses"))
}
MODULES = sorted(
    {value.__module__ for value in PUBLIC.values()}
    | {"jaxlt.analysis.dataset_losses", "jaxlt.evaluation.prediction", "jaxlt.recipes"}
    | {
        module.name
        for package in ("batch", "sharpness", "methods", "losses")
        for module in pkgutil.iter_modules(
            importlib.import_module(f"jaxlt.{package}").__path__, f"jaxlt.{package}."
        )
    }
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Where a run that one example has trained is there for the next."""
    return tmp_path_factory.mktemp("examples")


@pytest.mark.parametrize("module", MODULES)
def test_examples_give_what_they_show(module, directory, monkeypatch):
    """To two digits."""
    monkeypatch.chdir(directory)
    with np.printoptions(precision=2):
        assert doctest.testmod(importlib.import_module(module)).failed == 0


def unknown_names(name):
    """What a public name's examples use and do not import; None without an example."""
    found = doctest.DocTestParser().get_examples(PUBLIC[name].__doc__ or "")
    if not found:
        return None
    here = compile("".join(one.source for one in found), name, "exec", ast.PyCF_ONLY_AST)
    read, known = set(), {*vars(builtins)}
    for node in ast.walk(here):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else known).add(node.id)
        elif isinstance(node, ast.alias):
            known.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.arg)):
            known.add(node.arg if isinstance(node, ast.arg) else node.name)
    return read - known


def test_all_that_is_public_has_an_example_that_imports_what_it_uses():
    found = {name: unknown_names(name) for name in PUBLIC}
    assert {name: missing for name, missing in found.items() if missing != set()} == {}


def test_public_names_are_found():
    some = {"jaxlt.ClassLosses", "jaxlt.losses.lade", "jaxlt.models.load_torch_weights"}
    assert some <= set(PUBLIC)


def _with_arguments(package):
    """Functions, constructors and methods of two arguments or more, each with its docstrings.

    Those of a method are its own and those of the same method of its bases.
    """
    for name, value in vars(importlib.import_module(f"jaxlt.{package}".rstrip("."))).items():
        if name.startswith("_") or not getattr(value, "__module__", "").startswith("jaxlt"):
            continue
        if inspect.isfunction(value):
            yield name, value, [value.__doc__]
        if not inspect.isclass(value):
            continue
        # No constructor that others call: of fields, of a protocol, of what the package raises.
        inner = hasattr(value, "__match_args__") or getattr(value, "_is_protocol", False)
        if "__init__" in vars(value) and not (inner or issubclass(value, Exception)):
            yield name, value.__init__, [value.__doc__]
        for method, function in inspect.getmembers(value, inspect.isfunction):
            if not method.startswith("_") and function.__module__.startswith("jaxlt"):
                docs = [getattr(vars(base).get(method), "__doc__", "") for base in value.__mro__]
                yield f"{name}.{method}", function, docs


@pytest.mark.parametrize("package", EXPORTING)
def test_arguments_are_explained(package):
    missing = [
        name
        for name, function, docs in _with_arguments(package)
        if len(set(inspect.signature(function).parameters) - {"self", "cls"}) > 1
        and not any(re.search(r"Args:|Args as|see `", doc or "") for doc in docs)
    ]
    assert missing == []
