"""A finished run as an analysis needs it, its losses as a function of its parameters.

`ticking` shows how far an analysis is.
"""

import contextlib
import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np
from tqdm import tqdm

from experiments.examined import Examined
from experiments.loaded_runs import first_of_each_class, in_chunks
from jaxlt import losses
from jaxlt.analysis import DatasetLosses
from jaxlt.errors import UsageError
from jaxlt.evaluation import Predictor
from jaxlt.models.adaptation.trainable import join
from jaxlt.recipes.part import part_name
from jaxlt.recipes.recorded import TrainedRun
from jaxlt.recipes.stage import Stage
from jaxlt.training import Moment, PerExampleLoss

_logger = logging.getLogger(__name__)

Scope = Literal["all", "classifier"]

ALL = "all"
# Losses whose weights change over a stage have the last ones.
_END: Any = Moment(step=np.int32(np.iinfo(np.int32).max), key=None)  # pyright: ignore[reportArgumentType]
_SECONDS_BETWEEN_LINES = 15.0


class AnalyzedRun:
    """A run with the losses of the images examined as a function of its parameters theta.

    Theta are all parameters that were trained, or the classifier's alone: then the losses are
    computed from the features, which are computed once.
    """

    def __init__(self, run: TrainedRun, examined: Examined, scope: Scope = ALL):
        self.run = run
        if examined.images == "test":
            images, indices = run.tested
        else:
            images, indices = run.source.train, run.split.indices
        indices = run.usable(images, indices)
        indices = indices[first_of_each_class(images.labels[indices], examined.images_per_class)]
        loss = _loss(run, examined.loss)
        # Curvature drowns in the rounding of 16 bits.
        predictor = run.predictor().in_float32()
        of_classifier = scope == "classifier"
        if of_classifier:
            self.theta, rest = predictor.variables["params"]["classifier"], None
        else:
            self.theta, rest = split_variables(predictor)

        def losses_fn(theta: Any, rest: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
            if of_classifier:
                variables = {"params": {"classifier": theta}}
                logits: Any = predictor.network.apply(variables, inputs, method="logits_of")
            else:
                params = join(theta, rest["frozen"])
                variables = {"params": params, "batch_stats": rest["batch_stats"]}
                logits = predictor.logits_fn(variables, inputs)
            return loss(logits, labels, _END)

        self.losses = DatasetLosses.of(
            losses_fn,
            in_chunks(predictor.features if of_classifier else np.asarray, images, indices),
            images.labels[indices],
            run.num_classes,
            rest=rest,
        )

    @functools.cached_property
    def groups(self) -> dict[str, np.ndarray]:
        """Masks (C,) of all classes and of the shot groups, as far as there are images of them."""
        present = self.losses.counts > 0
        groups = {ALL: present, **self.run.groups()}
        return {name: mask & present for name, mask in groups.items() if (mask & present).any()}

    def group_means(self, by_class: np.ndarray) -> dict[str, np.ndarray]:
        """Averages losses by class (..., C) over the images of each group, to (...)."""
        counts = self.losses.counts
        return {
            name: by_class[..., mask] @ counts[mask] / counts[mask].sum()
            for name, mask in self.groups.items()
        }


def split_variables(predictor: Predictor) -> tuple[Any, Any]:
    """Returns the parameters that training changes, and all else that the network is applied to."""
    trained, frozen = predictor.network.split(predictor.variables["params"])
    return trained, {"frozen": frozen, "batch_stats": predictor.variables["batch_stats"]}


def check_same(
    analyzed: Sequence[AnalyzedRun], names: Sequence[tuple[str, ...]], what: str
) -> None:
    """Raises UsageError unless all runs can be shown group by group, or class by class."""
    for one, own in zip(analyzed, names, strict=True):
        if own != names[0]:
            raise UsageError(
                f"runs must have images of the same {what} to be shown together, "
                f"{analyzed[0].run.path} has {' '.join(names[0])} and {one.run.path} has "
                f"{' '.join(own)}"
            )


def _loss(run: TrainedRun, kind: Literal["cross_entropy", "own"]) -> PerExampleLoss:
    # The last stage that took steps.
    stage = next(one for one in reversed(run.recipe.stages) if isinstance(one, Stage))
    if kind == "own":
        if not stage.row_losses:
            raise UsageError(
                f"loss must be cross_entropy for run {run.path}: its own, {part_name(stage.loss)}, "
                "is none of each image alone"
            )
        return stage.build_loss(tuple(map(int, run.class_counts)))
    scale = stage.loss.logit_scale
    return lambda logits, labels, _: losses.cross_entropy(scale * logits, labels)


@contextlib.contextmanager
def ticking(label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Shows progress, a bar or lines in a log; yields a function to call after so many pieces."""
    began = said = time.perf_counter()
    done = 0
    with tqdm(total=total, desc=label, unit=unit, disable=not sys.stderr.isatty()) as bar:

        def tick(pieces: int) -> None:
            nonlocal done, said
            done += pieces
            bar.update(pieces)
            now = time.perf_counter()
            if bar.disable and (done == total or now - said > _SECONDS_BETWEEN_LINES):
                said, rate = now, done / (now - began)
                left = tqdm.format_interval((total - done) / rate)
                counted = f"{label}: {unit} {done}/{total}"
                _logger.info("%s, %.3g a second, ETA %s", counted, rate, left)

        yield tick
