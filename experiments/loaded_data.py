"""What a recipe trains on: its data set, the long-tailed split of it, and their batches."""

import logging
from pathlib import Path

from experiments.execution import PipelineKind
from experiments.feed import Feed
from experiments.recipe import Recipe
from jaxlt.data import Source, Split, load_source, long_tailed_split
from jaxlt.devices.sharding import Layout

_logger = logging.getLogger(__name__)


def load_data(
    recipe: Recipe, pipeline: PipelineKind, layout: Layout, check_images: bool
) -> tuple[Source, Split, Feed]:
    """Loads a recipe's data set and makes, or reads, its split.

    Args:
        recipe: says which.
        pipeline: whether the host or the device makes the batches.
        layout: of the devices, among which they are spread.
        check_images: whether all images will be decoded once before training.

    Raises:
        UsageError: the recipe does not fit its data.
    """
    source = load_source(
        recipe.dataset,
        image_size=recipe.image_size,
        resize=recipe.resize,
        normalization=recipe.normalization,
        # The check names what is unreadable, all of it.
        unreadable="skip" if check_images else recipe.unreadable,
        relabel=recipe.relabel,
    )
    split = _split(recipe, source)
    feed = Feed(
        source,
        split,
        pipeline,
        recipe.held_out,
        evaluated=recipe.evaluated,
        unreadable=recipe.unreadable,
        tte=recipe.tte,
        layout=layout,
    )
    return source, split, feed


def _split(recipe: Recipe, source: Source) -> Split:
    file = split_file(recipe)
    if file is not None and file.exists():
        split = Split.read(file, source)
        _logger.info(
            "%s rules: %s, imbalance factor %g, %s images of each class with seed %d",
            file,
            split.profile,
            split.imbalance_factor,
            split.rule,
            split.seed,
        )
        return split
    return long_tailed_split(
        source,
        profile=recipe.profile,
        imbalance_factor=recipe.imbalance_factor,
        max_per_class=recipe.max_per_class,
        class_order=recipe.class_order,
        rule=recipe.selection,
        seed=recipe.split_seed,
    )


def split_file(recipe: Recipe) -> Path | None:
    """Returns the file that rules, or is to hold, the split; None for none."""
    return Path(recipe.split_file) if recipe.split_file else None
