"""A stage of a run: what is trained, on which images, by which loss, method and optimizer."""

import functools
import math
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import optax

from jaxlt.errors import UsageError
from jaxlt.methods.every import every
from jaxlt.methods.per_shard import per_shard
from jaxlt.recipes.data import AnySampler, Augmentation, InstanceBalanced
from jaxlt.recipes.losses import AnyAdversary, AnyLoss, ClassBalanced
from jaxlt.recipes.losses.loss import CrossEntropy
from jaxlt.recipes.methods import AnyMethod, ClassCounts
from jaxlt.recipes.methods.method import REUSED, SGD, Reusing
from jaxlt.recipes.optimizer import Optimizer
from jaxlt.recipes.parameters import kernel_and_bias, perturbed, trained
from jaxlt.recipes.part import Choice, Clock, Count, CountOrZero, NonNegative

if TYPE_CHECKING:
    from jaxlt.training import PerExampleLoss


class Stage(Choice, frozen=True, tag="train"):
    """A stretch of training. The defaults are the field's usual values for CIFAR-LT."""

    epochs: Count = 200
    """Passes over the training images."""
    batch_size: Count = 128
    """Images a step, over all devices."""
    method: AnyMethod = SGD()
    """How the gradient is taken."""
    loss: AnyLoss = CrossEntropy()
    """Per-example loss."""
    reweighting: ClassBalanced | None = None
    """Class weights of the loss: class_balanced or none."""
    optimizer: Optimizer = Optimizer()
    """What follows the method."""
    sampler: AnySampler = InstanceBalanced()
    """How often each class is seen."""
    augmentation: Augmentation = Augmentation()
    """Random changes of the images."""
    adversary: AnyAdversary | None = None
    """CC-SAM's second stage: paper, released or none."""
    trainable: Literal["all", "last_block", "classifier", "scale"] = "all"
    """Parameters that are trained: all, the classifier, a ResNet's last_block and the classifier,
    or a scale on each class's logit (LWS)."""
    reset_classifier: bool = False
    """Begin with a new classifier, as cRT does."""
    learn_scale: bool = False
    """Give each class's logit a factor that is learned (LWS), 1 at first."""
    batch_norm: Literal["batch", "last_block", "running", "held"] = "batch"
    """Statistics that normalize: the batch's, averaged on even where the network is frozen; the
    running averages, which then stay; in a ResNet's last_block the batch's, the averages below; or
    held, the clean pass's in all passes. Held, images do not depend on each other, which is another
    network to train than the papers'."""
    swa_epoch: CountOrZero | None = None
    """First zero-based epoch of weight averaging (SWA), whose mean ends the stage."""
    spectral_norm: Literal["none", "classifier", "all"] = "none"
    """Kernels that are divided by their spectral norm."""
    perturbation_shards: Count = 1
    """m-sharpness: shards of a batch, one a device, each with its own perturbation. Batch norm and
    mixup are a shard's own too. 1 for the whole batch on any number of devices."""

    def __post_init__(self):
        super().__post_init__()
        trainable, norm, check = self.trainable, self.batch_norm, self.check
        divides = self.batch_size % self.perturbation_shards == 0
        check("perturbation_shards", divides, f"a divisor of batch_size {self.batch_size}")
        if self.adversary is not None:
            check("trainable", trainable == "classifier", "classifier with an adversary")
            check("augmentation.mixup", self.augmentation.mixup == 0, "0 with an adversary")
            check("learn_scale", not self.learn_scale, "false with an adversary")
        if trainable == "scale":
            check("learn_scale", self.learn_scale, "true where the scale is trained")
        if trainable == "last_block":
            need = "last_block or running to train last_block"
            check("batch_norm", norm in ("last_block", "running"), need)
        if norm == "held":
            check("trainable", trainable == "all", "all where batch_norm is held")
        if self.swa_epoch is not None:
            check("swa_epoch", self.swa_epoch < self.epochs, f"in 0..{self.epochs - 1}")

    def clock(self, num_images: int) -> Clock:
        """Returns what turns the stage's epochs into steps."""
        return Clock(num_images, self.batch_size, self.epochs)

    def pace(self, num_images: int, first: int, stop: int, seconds: float) -> dict[str, float]:
        """Returns the last learning rate and, if timed, images/s of steps, see `training.Steps`."""
        rate = np.asarray(self.optimizer.rate(self.clock(num_images))(stop - 1))
        images = self.batch_size * (stop - first)
        timed = {"images_per_second": images / seconds} if seconds else {}
        return {"learning_rate": float(rate), **timed}

    def num_steps(self, num_images: int, epochs: float | None = None) -> int:
        """Returns how many steps some epochs of a split take, see `Clock`; None for the stage's."""
        return self.clock(num_images).steps(self.epochs if epochs is None else epochs)

    def scaled(self, factor: float) -> "Stage":
        """Returns the stage with everything given in epochs, times a factor."""
        epochs, changes = max(1, round(self.epochs * factor)), {}
        if self.swa_epoch is not None:
            changes["swa_epoch"] = min(math.floor(self.swa_epoch * factor), epochs - 1)
        if self.reweighting is not None:
            later = math.floor(self.reweighting.epoch * factor)
            changes["reweighting"] = self.reweighting.replace(epoch=later)
        return self.replace(epochs=epochs, method=self.method.scaled(factor), **changes)

    def build_loss(self, class_counts: ClassCounts) -> "PerExampleLoss":
        """Builds the per-example loss, with class weights where the stage has them."""
        per_example = self.loss.build(class_counts)
        if self.reweighting is None:
            return per_example
        clock = self.clock(sum(class_counts))
        return self.reweighting.build(per_example, class_counts, clock)

    @property
    def row_losses(self) -> bool:
        """Whether each image's loss depends on that image's logits and label alone."""
        mean = None if self.reweighting is None else self.reweighting.mean
        return self.loss.of_rows and mean != "weights"

    def build_optimizer(
        self, class_counts: ClassCounts, *, phase: int = 0, axis_name: str | None = None
    ) -> optax.GradientTransformation:
        """Builds the optax chain: method, weight decay, SGD with momentum, weight averaging.

        Args:
            class_counts: training images of each class.
            phase: which of the method's forms, or `REUSED`; all have the same state.
            axis_name: mapped axis over whose shards the method averages, see `jaxlt.per_shard`;
                None where it sees the whole batch. The state is the same.

        Raises:
            UsageError: a number of the method is out of range.
        """
        clock, trainable = self.clock(sum(class_counts)), self.trainable
        scope, mask = getattr(self.method, "scope", "all"), None
        if not trainable == scope == "all":
            mask = functools.partial(perturbed, trainable, scope)
        try:
            method = self.method.build(class_counts, clock, mask, max(phase, 0))
        except ValueError as error:
            raise UsageError(str(error)) from error
        if isinstance(self.method, Reusing) and self.method.every > 1:
            kind, alpha = "reused" if phase == REUSED else "whole", self.method.alpha
            method = every(self.method.every, method, alpha=alpha, phase=kind)
        if axis_name is not None:
            method = per_shard(method, axis_name)
        sgd = self.optimizer.build(clock)
        if trainable != "all":
            labels = functools.partial(trained, trainable)
            sgd = optax.partition({True: sgd, False: optax.set_to_zero()}, labels)
        links = [method, sgd]
        if (factor := self.optimizer.classifier_lr_factor) != 1:
            links.append(optax.masked(optax.scale(factor), kernel_and_bias))
        if self.swa_epoch is not None:
            from jaxlt.training.step.weight_average import weight_average

            numbers = {"num_images": clock.num_images, "batch_size": clock.batch_size}
            links.append(weight_average(self.swa_epoch, **numbers))
        return optax.chain(*links)


class TauNorm(Choice, frozen=True, tag="tau_norm"):
    """Divides each class's weights by their norm to a power and drops the bias, without steps."""

    tau: NonNegative = 0.5
    """Exponent, 0 to leave the weights alone and 1 for unit norms."""


class NearestClassMean(Choice, frozen=True, tag="ncm"):
    """Takes the means of the classes' normalized features as a classifier, without steps."""


AnyStage: TypeAlias = Stage | TauNorm | NearestClassMean
