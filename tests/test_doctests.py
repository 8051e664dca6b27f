"""The examples in the docstrings of the core give what they show; all that is public has one."""

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import jaxlt

PACKAGES = ("batch", "sharpness", "methods", "losses")
MODULES = [
    "jaxlt.errors",
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
