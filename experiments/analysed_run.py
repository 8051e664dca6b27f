"""A finished run as an analysis needs it: its losses as a function of its parameters."""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np

from experiments.examined import Examined
from experiments.loaded_runs import chunks, first_of_each_class, in_chunks
from jaxlt import losses
from jaxlt.analysis import DatasetLosses, LossesFn
from jaxlt.errors import UsageError
from jaxlt.evaluation import Predictor
from jaxlt.models.adaptation.trainable import join
from jaxlt.recipes.part import part_name
from jaxlt.recipes.stage import Stage
from jaxlt.recipes.trained_run import TrainedRun
from jaxlt.training import Moment, PerExampleLoss

Scope = Literal["all", "classifier"]

ALL = "all"


class AnalysedRun:
    """A run with the losses that its parameters theta give to the images examined.

    Args:
        run: the run.
        examined: images and loss.
        scope: theta: the parameters that were trained, or the classifier's alone. With the latter
            what the losses are computed from are the features, once and for all.

    Attributes:
        run: the run.
        theta: parameters, a pytree.
        losses: the losses as a function of them.

    Raises:
        UsageError: the images or the loss are none that the run has.
    """

    def __init__(self, run: TrainedRun, examined: Examined, scope: Scope = ALL):
        self.run = run
        images = run.test_images if examined.images == "test" else run.source.train
        indices = run.split.indices if examined.images == "train" else np.arange(len(images.labels))
        indices = run.usable(images, indices)
        firsts = first_of_each_class(images.labels[indices], examined.images_per_class)
        indices = indices[firsts]
        loss = _loss(run, examined.loss)
        # Curvature drowns in the rounding of 16 bits.
        predictor = run.predictor().in_float32()
        if scope == "classifier":
            inputs = in_chunks(predictor.features, images, indices)
            theta, rest = predictor.variables["params"]["classifier"], None
            losses_fn = _losses_of_features(predictor, loss)
        else:
            inputs = np.concatenate([images.load(some) for some in chunks(indices)])
            theta, rest = split_variables(predictor)
            losses_fn = _losses_of_images(predictor, loss)
        self.theta = theta
        self.losses = DatasetLosses.of(
            losses_fn, inputs, images.labels[indices], run.num_classes, rest=rest
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


def analysed_runs(
    runs: Sequence[TrainedRun], examined: Examined, scope: Scope = ALL
) -> list[AnalysedRun]:
    """Prepares the runs of a call, of which all have images of the same groups.

    Raises:
        UsageError: as `AnalysedRun`, or one has a group that another has not.
    """
    analysed = [AnalysedRun(run, examined, scope) for run in runs]
    check_same_parts(analysed, [tuple(one.groups) for one in analysed], "groups of classes")
    return analysed


def check_same_parts(
    analysed: Sequence[AnalysedRun], parts: Sequence[tuple[str, ...]], what: str
) -> None:
    """Raises UsageError unless all runs can be shown part by part."""
    for one, own in zip(analysed, parts, strict=True):
        if own != parts[0]:
            raise UsageError(
                f"runs must have images of the same {what} to be shown together, "
                f"{analysed[0].run.path} has {' '.join(parts[0])} and {one.run.path} has "
                f"{' '.join(own)}"
            )


def trajectory(run: TrainedRun) -> dict[int, Any]:
    """Returns the trained parameters of each checkpoint up to the run's own, by step.

    Only those of the form of the last: another stage may have had another classifier.
    """
    last = split_variables(run.predictor())[0]
    points = {}
    for step in run.files.saved_steps():
        if run.step is not None and step > run.step:
            continue
        try:
            theta = split_variables(Predictor.load(run.path, step))[0]
        except UsageError:
            # Reported in the log; a trajectory can do without one of its points.
            continue
        if jax.tree.map(np.shape, theta) == jax.tree.map(np.shape, last):
            points[step] = theta
    return points


def _losses_of_images(predictor: Predictor, loss: PerExampleLoss) -> LossesFn:
    def losses_fn(theta: Any, rest: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        params = join(theta, rest["frozen"]) if rest["frozen"] else theta
        variables = {"params": params, "batch_stats": rest["batch_stats"]}
        return loss(predictor.logits_fn(variables, images), labels, _END)

    return losses_fn


def _losses_of_features(predictor: Predictor, loss: PerExampleLoss) -> LossesFn:
    def losses_fn(theta: Any, rest: Any, features: jax.Array, labels: jax.Array) -> jax.Array:
        del rest
        variables = {"params": {"classifier": theta}}
        logits: Any = predictor.network.apply(variables, features, method="logits_of")
        return loss(logits, labels, _END)

    return losses_fn


# Losses whose weights change over a stage have the last ones.
_END: Any = Moment(step=np.int32(np.iinfo(np.int32).max), key=None)  # pyright: ignore[reportArgumentType]


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
