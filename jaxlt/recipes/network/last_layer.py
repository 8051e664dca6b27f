"""The last layer of a recipe's network."""

from jaxlt.recipes.part import Choice, Positive


class LinearLayer(Choice, frozen=True, tag="linear"):
    """An affine last layer."""


class CosineLayer(Choice, frozen=True, tag="cosine"):
    """A last layer of normalized features and weights, as LDAM needs."""

    scale: Positive = 1.0
    """Constant factor on the cosines; 1 with ldam and gcl, which have their own."""
