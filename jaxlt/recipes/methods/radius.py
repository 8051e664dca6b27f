"""Another radius than a recipe's, for several runs together."""

import copy

import jax
import msgspec

from jaxlt.recipes.methods.method import Method, OneRadius


def has_radius(method: Method) -> bool:
    """Whether the method has one radius, which several runs together may vary."""
    return isinstance(method, OneRadius)


def with_radius(method: Method, rho: float | jax.Array) -> Method:
    """Changes the radius.

    Args:
        method: one that has a radius.
        rho: the radius; it may be traced, so it is not checked.
    """
    changed = copy.copy(method)
    msgspec.structs.force_setattr(changed, "rho", rho)
    return changed
