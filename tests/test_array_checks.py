"""The tests check the arrays that go into and come out of the functions of some packages."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import array_checks
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import jaxlt
from jaxlt import analysis
from jaxlt.batch.argument_checks import at_step
from jaxlt.sharpness.perturbation import constant_radius
from jaxlt.training.step.mixup import mixup

CHECKS = str(Path(jaxtyping.__file__).parent)
LABELS, LOGITS = np.array([0, 1, 1]), np.ones((3, 2), np.float32)
ONE, PARAMS = np.ones([], np.float32), np.array([3.0, 4.0], np.float32)


def class_losses_fn(w):
    return jaxlt.ClassLosses(w**2 / 2, counts=jnp.ones(2))


# A function of each package, arguments that it takes, and one that is wrong in place of its like.
CALLS = {
    "batch: rank": (
        jaxlt.class_losses,
        {"per_example": LOGITS[:, 0], "labels": LABELS, "num_classes": 2},
        {"per_example": LOGITS},
    ),
    "losses: axis": (
        jaxlt.losses.cross_entropy,
        {"logits": LOGITS, "labels": LABELS},
        {"labels": LABELS[:2]},
    ),
    "losses: dtype": (
        jaxlt.losses.cross_entropy,
        {"logits": LOGITS, "labels": LABELS},
        {"labels": LABELS * 1.0},
    ),
    "methods: rank": (jaxlt.sam, {"rho": np.float32(0.1)}, {"rho": np.full(1, 0.1)}),
    "methods: dtype": (
        jaxlt.imb_sam,
        {"class_counts": np.array([5, 1]), "rho": 0.1, "tail_threshold": 2},
        {"class_counts": np.array([5j, 1j])},
    ),
    "sharpness: rank": (
        constant_radius,
        {"rho": ONE, "norms": PARAMS},
        {"norms": PARAMS[None]},
    ),
    "analysis: axis": (
        analysis.group_sharpness,
        {"class_losses_fn": class_losses_fn, "params": PARAMS, "groups": np.eye(2, dtype=bool)},
        {"groups": np.eye(2, dtype=bool)[0]},
    ),
    "training.step: axis": (
        mixup,
        {"key": np.zeros(2, np.uint32), "images": LOGITS, "labels": LABELS, "alpha": 1.0},
        {"labels": LABELS[:2]},
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_an_array_that_does_not_fit_is_refused(case):
    function, arguments, wrong = CALLS[case]
    if function in (constant_radius, mixup):  # within the package arrays are JAX's
        arguments, wrong = jax.tree.map(
            lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, (arguments, wrong)
        )
    function(**arguments)
    with pytest.raises(jaxtyping.TypeCheckError, match=f"parameter '{next(iter(wrong))}'"):
        function(**arguments | wrong)


@pytest.mark.parametrize("package", array_checks.PACKAGES)
def test_all_functions_of_a_package_are_checked(package):
    """None of its modules was imported before the check was there."""
    place = importlib.import_module(package).__path__
    names = [package, *(module.name for module in pkgutil.iter_modules(place, f"{package}."))]
    checked, unchecked = [], []
    for name in names:
        for function in vars(importlib.import_module(name)).values():
            if inspect.isfunction(function) and function.__module__ == name:
                of_checks = function.__code__.co_filename.startswith(CHECKS)
                (checked if of_checks else unchecked).append(f"{name}.{function.__name__}")
    assert unchecked == []
    assert checked


def test_a_result_that_does_not_fit_is_refused():
    def broken(step):
        return jnp.ones(2)

    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        at_step(broken, 0)
