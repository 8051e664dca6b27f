"""Class counts of every kind, and what is wrong with the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlt.batch.argument_checks import check_class_counts, class_prior


@pytest.mark.parametrize(
    "kind",
    [
        tuple,
        list,
        lambda counts: [5.0, 3, np.int64(2)],
        np.array,
        lambda counts: np.array(counts, np.uint8),
        jnp.asarray,
        lambda counts: jnp.asarray(counts, jnp.bfloat16),
    ],
)
def test_kinds(kind):
    checked = check_class_counts(kind((5, 3, 2)), 3)
    assert checked.dtype == jnp.float32
    np.testing.assert_array_equal(checked, [5, 3, 2])
    np.testing.assert_allclose(class_prior(checked), [0.5, 0.3, 0.2], rtol=1e-6)


@pytest.mark.usefixtures("unchecked_arrays")
def test_traced_counts_are_checked_for_their_shape():
    checked = jax.jit(lambda c: check_class_counts(c, 3))(jnp.asarray([5, 3, 2]))
    np.testing.assert_array_equal(checked, [5, 3, 2])
    with pytest.raises(ValueError, match=r"^class_counts must hold one count for each of the 4"):
        jax.jit(lambda c: check_class_counts(c, 4))(jnp.asarray([5, 3, 2]))
    with pytest.raises(ValueError, match=r"^class_counts must have shape \(C,\), got \(1, 2\)"):
        jax.jit(check_class_counts)(jnp.ones((1, 2)))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((), r"class_counts must hold one count for each class, got \(\)"),
        (7, "class_counts must hold one count for each class, got 7"),
        ("abc", "class_counts must hold one count for each class, got 'abc'"),
        ((5, 0, 2), "class_counts must be positive whole numbers, got 0 for class 1"),
        ((5, 3, -2), "class_counts must be positive whole numbers, got -2 for class 2"),
        (
            np.array([5.0, np.nan]),
            "class_counts must be positive whole numbers, got nan for class 1",
        ),
        (
            (5, float("inf")),
            "class_counts must be positive whole numbers, got inf for class 1",
        ),
        ((5, "3"), "class_counts must be positive whole numbers, got '3' for class 1"),
        (
            np.ones((2, 2)),
            r"class_counts must be positive whole numbers, got \[1.0, 1.0\] for class 0",
        ),
        ((5, 2.5, 1), "class_counts must be positive whole numbers, got 2.5 for class 1"),
        ((5, 1j), "class_counts must be positive whole numbers, got 1j for class 1"),
        ((5, True), "class_counts must be positive whole numbers, got True for class 1"),
        (np.array([True]), "class_counts must be positive whole numbers, got True"),
        (0.1, "class_counts must hold one count for each class, got 0.1"),
        (lambda step: 1, "class_counts must hold one count for each class, got <function"),
        ((5, 3), "class_counts must hold one count for each of the 3 classes, got 2 counts"),
    ],
)
@pytest.mark.usefixtures("unchecked_arrays")
def test_error_names_the_counts(counts, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        check_class_counts(counts, 3)
