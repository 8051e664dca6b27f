"""Docstrings of what packages export: examples give what they show, arguments are explained."""

import doctest
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest

import jaxlt

PACKAGES = ("batch", "sharpness", "methods", "losses")
MODULES = [
    "jaxlt.errors",
    "jaxlt.recipes.named",
    "jaxlt.recipes.recipe",
    "jaxlt.recipes.recorded",
    *(
        module.name
        for package in PACKAGES
        for module in pkgutil.iter_modules(
            importlib.import_module(f"jaxlt.{package}").__path__, f"jaxlt.{package}."
        )
    ),
]
PUBLIC = {
    f"{module.__name__}.{name}": value
    for module in (jaxlt, jaxlt.losses)
    for name, value in vars(module).items()
    if not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value))
}

EXPORTING = ("", "losses", "data", "models", "training", "evaluation", "analysis", "recipes")


@pytest.mark.parametrize("module", MODULES)
def test_examples_give_what_they_show(module):
    """To two digits."""
    with np.printoptions(precision=2):
        assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_all_that_is_public_has_an_example(name):
    assert ">>> " in (PUBLIC[name].__doc__ or "")


def test_public_names_are_found():
    assert {"jaxlt.focal_sam", "jaxlt.ClassLosses", "jaxlt.losses.lade"} <= set(PUBLIC)


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
