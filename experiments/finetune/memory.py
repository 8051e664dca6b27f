"""The largest batch that fits in an accelerator's memory."""

import logging
import math
from collections.abc import Callable
from pathlib import Path

from jaxlt.recipes.named import vary
from jaxlt.recipes.recipe import Recipe

_logger = logging.getLogger(__name__)

# The rest is for evaluation and for the copies that checkpoints are made of.
_SHARE = 0.75


def largest_batch(most: int, needed: Callable[[int], float], limit: float) -> int:
    """Returns the largest of `most`, its half, its quarter and so on that fits, at least 1.

    Args:
        most: images of a batch, a power of two.
        needed: from a batch's size to the bytes that a step takes, inf where it cannot be.
        limit: bytes that a step may take.

    Example:
        >>> largest_batch(128, lambda images: 1000.0 * images, 40_000.0)
        32
    """
    size = most
    while size > 1 and (bytes_of_step := needed(size)) > limit:
        _logger.info("batches of %d take %.2f GB, of %.2f", size, bytes_of_step / 1e9, limit / 1e9)
        size //= 2
    return size


def with_fitting_batch(recipe: Recipe) -> tuple[Recipe, str]:
    """Returns a recipe with the largest batch that fits on a device, its own or less; and why."""
    from jaxlt.training.loop.together import device_memory

    before, limit = recipe.first, device_memory() * _SHARE

    def needed(size: int) -> float:
        return _bytes_of_step(vary(recipe, batch_size=size))

    size = largest_batch(before.batch_size, needed, limit)
    if size == before.batch_size:
        return recipe, f"batches of {size} fit in {limit / 1e9:.2f} GB of the device's memory"
    lr = float(f"{before.optimizer.lr * math.sqrt(size / before.batch_size):.2g}")
    line = (
        f"batches of {size}, the largest that fit in {limit / 1e9:.2f} GB, with learning rate {lr}"
    )
    return vary(recipe, batch_size=size, lr=lr), line


def _bytes_of_step(recipe: Recipe) -> float:
    import jax

    from jaxlt.recipes.built_recipe import BuiltRecipe, Member
    from jaxlt.training.loop.together import bytes_needed

    try:
        # No file is written for a job that does not train.
        return bytes_needed(BuiltRecipe(recipe).job(Member(0, Path("unused"))))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return float("inf")
