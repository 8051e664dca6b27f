"""Focal-SAM: the old name of its weight."""

from typing import Any

import optax
import pytest
from small_problems import (
    COUNTS,
    assert_close,
    batch,
    first_update,
    initial_params,
)

import jaxlt

OTHERS = {"class_counts": COUNTS, "rho": 0.2, "gamma": 3.2}


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "inject_hyperparams"])
def test_old_name_of_the_weight_warns_and_works(wrapped):
    factory: Any = optax.inject_hyperparams(jaxlt.focal_sam) if wrapped else jaxlt.focal_sam

    def gradient(**weight):
        return first_update(factory(**OTHERS, **weight), *batch(2))[0]

    with pytest.warns(DeprecationWarning, match="sharpness= is deprecated: give sharpness_weight="):
        old = gradient(sharpness=0.7)
    assert_close(old, gradient(sharpness_weight=0.7), 0)


def test_new_name_of_the_weight_is_a_hyperparameter_in_the_state():
    tx: Any = optax.inject_hyperparams(jaxlt.focal_sam)(**OTHERS, sharpness_weight=0.8)
    assert set(tx.init(initial_params()).hyperparams) >= {"rho", "gamma", "sharpness_weight"}


def test_old_name_of_the_weight_is_checked_under_the_new_one():
    with (
        pytest.warns(DeprecationWarning, match="sharpness_weight="),
        pytest.raises(ValueError, match=r"^sharpness_weight must be at least 0 .*, got -0.5$"),
    ):
        jaxlt.focal_sam(**OTHERS, sharpness=-0.5)


def test_both_names_of_the_weight():
    message = "^sharpness_weight must be given once, got it and its old name sharpness: drop "
    with pytest.raises(ValueError, match=message):
        jaxlt.focal_sam(**OTHERS, sharpness=0.7, sharpness_weight=0.5)
