"""SGD and its learning rates by epoch, as parts of a recipe."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import optax

from jaxlt.recipes.part import Choice, Clock, Count, NonNegative, Part, Share

EpochFn: TypeAlias = Callable[[Any], Any]


class Schedule(Choice, frozen=True):
    """From the zero-based epoch to the learning rate.

    `build(peak, epochs)` returns the function, for a stage of so many epochs.
    """

    def build(self, peak: float, epochs: int) -> EpochFn:
        """Returns a function of the zero-based epoch, a float."""
        raise NotImplementedError


class Constant(Schedule, frozen=True, tag="constant"):
    """The peak in all epochs."""

    def build(self, peak: float, epochs: int) -> EpochFn:  # noqa: D102 (see Schedule, as below)
        from jaxlt.training.step import schedules

        return schedules.constant(peak)


class Cosine(Schedule, frozen=True, tag="cosine"):
    """Cosine annealing to 0, stepped after each epoch."""

    def build(self, peak: float, epochs: int) -> EpochFn:  # noqa: D102
        from jaxlt.training.step import schedules

        return schedules.cosine(peak, epochs)


class CosineSteppedFirst(Schedule, frozen=True, tag="cosine_stepped_first"):
    """Cosine annealing that ends with an epoch at 0, as SSE-SAM and ImbSAM run it."""

    def build(self, peak: float, epochs: int) -> EpochFn:  # noqa: D102
        from jaxlt.training.step import schedules

        return schedules.cosine_stepped_first(peak, epochs)


class WarmupCosine(Schedule, frozen=True, tag="warmup_cosine"):
    """A rise from half the peak over the first sixteenth of the epochs, then cosine (BALMS)."""

    def build(self, peak: float, epochs: int) -> EpochFn:  # noqa: D102
        from jaxlt.training.step import schedules

        return schedules.warmup_cosine(peak, epochs, max(1, epochs // 16))


class MultiStep(Schedule, frozen=True, tag="multistep"):
    """Linear warm-up, then a fall after some shares of the epochs.

    The defaults are LDAM-DRW's; MiSLAS and GCL fall to 0.1 and 0.01.
    """

    warmup: Count = 5
    """Epochs of linear warm-up."""
    after: tuple[Share, ...] = (0.8, 0.9)
    """Shares of the epochs after which the learning rate falls."""
    factors: tuple[NonNegative, ...] = (0.01, 0.0001)
    """Factors on the peak from then on, one for each share."""

    def build(self, peak: float, epochs: int) -> EpochFn:  # noqa: D102
        from jaxlt.training.step import schedules

        after = tuple(epochs * share for share in self.after)
        return schedules.multistep(peak, warmup=self.warmup, after=after, factors=self.factors)


class CCSAMMultiStep(Schedule, frozen=True, tag="cc_sam_multistep"):
    """Released CC-SAM's: warm-up from a third of the peak, a tenth each after 80% and 90%."""

    def build(self, peak: float, epochs: int) -> EpochFn:  # noqa: D102
        from jaxlt.training.step import schedules

        return schedules.cc_sam_multistep(peak, (epochs * 0.8, epochs * 0.9))


if TYPE_CHECKING:
    AnySchedule: TypeAlias = Schedule
else:
    AnySchedule = Constant | Cosine | CosineSteppedFirst | WarmupCosine | MultiStep | CCSAMMultiStep


class Optimizer(Part, frozen=True):
    """SGD with momentum, behind the method."""

    lr: NonNegative = 0.1
    """Peak learning rate."""
    schedule: AnySchedule = Cosine()
    """Learning rate by epoch."""
    momentum: NonNegative = 0.9
    """Momentum."""
    nesterov: bool = False
    """Nesterov's form of momentum."""
    weight_decay: NonNegative = 2e-4
    """Added to the final gradient as weight_decay * w, for all that is trained."""
    classifier_lr_factor: NonNegative = 1.0
    """Factor on the learning rate of the classifier's kernel and bias."""

    def build(self, clock: Clock) -> optax.GradientTransformation:
        """Builds weight decay and SGD, without the classifier's factor."""
        from jaxlt.training.step import schedules

        rate = schedules.by_epoch(
            self.schedule.build(self.lr, clock.epochs), clock.num_images, clock.batch_size
        )
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay),
            optax.sgd(rate, momentum=self.momentum, nesterov=self.nesterov),
        )
