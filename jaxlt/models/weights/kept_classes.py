"""Classifiers of which some classes have weights and the others are to be drawn."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeptClasses:
    """A leaf of a classifier, in place of an array: some classes have values, others have none.

    Attributes:
        values: (..., C), of which those of the other classes mean nothing.
        kept: (C,) bool, the classes that have values.
    """

    values: Any
    kept: Any

    def over(self, drawn: jax.Array) -> jax.Array:
        """Returns the drawn leaf (..., C) with the values in it, bit for bit."""
        return jnp.where(self.kept, self.values, drawn)


def rows_by_name(
    classifier: dict[str, Any], old: tuple[str, ...], new: tuple[str, ...]
) -> dict[str, KeptClasses]:
    """Returns a classifier for other classes, whose weights follow the names of the classes.

    Args:
        classifier: leaves (..., classes).
        old: its classes' names, all different, by label.
        new: the names to be, by label; those that are not among the old ones have no values.

    Example:
        >>> import numpy as np
        >>> from jaxlt.models.weights.kept_classes import rows_by_name
        >>> rows = rows_by_name({"bias": np.array([1.0, 2.0])}, ("cat", "dog"), ("ant", "dog"))
        >>> rows["bias"].over(np.zeros(2)).tolist()
        [0.0, 2.0]
    """
    label_of = {name: label for label, name in enumerate(old)}
    places = np.array([label_of.get(name, -1) for name in new])
    return {
        name: KeptClasses(np.asarray(leaf)[..., places], places >= 0)
        for name, leaf in classifier.items()
    }
