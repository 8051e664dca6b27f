"""One recipe, ready to run with any seed: data loaded, split made, step compiled once."""

import dataclasses
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.build import (
    build_loss,
    build_model,
    build_optimizer,
    count_parameters,
    num_steps,
)
from experiments.recipe import Recipe
from jaxlt.data import (
    Batch,
    InstanceBalanced,
    Source,
    Split,
    evaluation_batches,
    load_source,
    long_tailed_split,
    training_batches,
)
from jaxlt.evaluation import ShotGroups, evaluate, group_accuracy
from jaxlt.training import (
    Job,
    TrainState,
    Workdir,
    make_logits_fn,
    make_state_fn,
    make_train_step,
    train,
)

_logger = logging.getLogger(__name__)


class Experiment:
    """A recipe with its data, network and compiled step; seeds share all of them.

    Args:
        recipe: what to run.

    Raises:
        UsageError: the recipe does not fit its data, or a number in it is out of range.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.groups = ShotGroups(recipe.many_above, recipe.few_below)
        self.source = load_source(recipe.dataset, image_size=recipe.image_size)
        self.split = _split(recipe, self.source)
        model = build_model(recipe, self.source.num_classes, self.source.image_shape)
        optimizer = build_optimizer(recipe, self.split.class_counts)
        self._train_step = make_train_step(
            model,
            optimizer,
            build_loss(recipe, self.split.class_counts),
            self.source.num_classes,
        )
        self._initial_state = make_state_fn(model, optimizer, self.source.image_shape)
        self._logits = make_logits_fn(model)

    @property
    def num_images(self) -> int:
        """Training images of the split."""
        return len(self.split.indices)

    def run(
        self, seed: int, path: Path, *, keep_checkpoints: int = 2, label: str = ""
    ) -> dict[str, Any]:
        """Trains with one seed, resuming what `path` holds, and returns the result.

        Args:
            seed: of parameters, order and augmentation; the split has its own.
            path: the run's directory.
            keep_checkpoints: how many of the latest are kept, beside the best.
            label: name in progress lines.

        Returns:
            The last evaluation: `accuracy`, `balanced_accuracy`, `many`, `medium`, `few` (None for
            a group without class), `per_class`, losses, `step`, and `seconds` of training.

        Raises:
            UsageError: the directory is not this recipe's; nothing in it is changed then.
            Interrupted: a signal asked to stop; the state is saved.
        """
        described = dataclasses.asdict(self.recipe)
        workdir = Workdir(path, {**described, "seed": seed, "images": _digest(self.split.indices)})
        if not (path / "split.json").exists():
            self.split.write(path / "split.json")
        total = num_steps(self.recipe, self.num_images)
        state = self._initial_state(seed)
        _logger.info(
            "%s: %s, %d training images in %d classes (%d to %d a class), %s with %d "
            "parameters, %d steps, %s",
            label,
            self.recipe.dataset,
            self.num_images,
            self.source.num_classes,
            max(self.split.class_counts),
            min(self.split.class_counts),
            self.recipe.model,
            count_parameters(state.params),
            total,
            path,
        )
        job = Job(
            initial_state=state,
            train_step=self._train_step,
            batches=lambda start, stop: self._batches(seed, start, stop),
            evaluate=self._evaluate,
            num_steps=total,
            eval_steps=num_steps(self.recipe, self.num_images, self.recipe.eval_epochs),
        )
        train(job, workdir, keep_checkpoints=keep_checkpoints, label=label)
        result = workdir.read_result()
        assert result is not None, "train returns after the result is written"
        return result

    def _batches(self, seed: int, start: int, stop: int) -> Iterator[Batch]:
        return training_batches(
            self.source.train,
            self.split.indices,
            sampler=InstanceBalanced(self.num_images, seed),
            batch_size=self.recipe.batch_size,
            seed=seed,
            start_step=start,
            stop_step=stop,
            mean=self.source.mean,
            std=self.source.std,
            augmentation=self.recipe.augmentation,
        )

    def _evaluate(self, state: TrainState) -> dict[str, Any]:
        batches = evaluation_batches(
            self.source.test, batch_size=500, mean=self.source.mean, std=self.source.std
        )
        result = evaluate(
            lambda images: self._logits(state, jnp.asarray(images)),
            batches,
            self.source.num_classes,
        )
        counts = np.array(self.split.class_counts)
        return {
            "test_loss": result.loss,
            "accuracy": result.accuracy,
            "balanced_accuracy": result.balanced_accuracy,
            **group_accuracy(result.per_class, counts, self.groups),
            "per_class": result.per_class.tolist(),
        }


def _split(recipe: Recipe, source: Source) -> Split:
    file = Path(recipe.split_file) if recipe.split_file else None
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
    split = long_tailed_split(
        source,
        profile=recipe.profile,
        imbalance_factor=recipe.imbalance_factor,
        max_per_class=recipe.max_per_class,
        class_order=recipe.class_order,
        rule=recipe.selection,
        seed=recipe.split_seed,
    )
    if file is not None:
        split.write(file)
    return split


def _digest(indices: np.ndarray) -> str:
    return hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()[:16]
