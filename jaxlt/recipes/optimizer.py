"""SGD and its learning rates by epoch, as parts of a recipe."""

from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxlt.recipes.part import BelowOne, Clock, Count, NonNegative, Part, Share
from jaxlt.recipes.schedule import CCSAMMultiStep, Constant, EpochFn, Schedule


class CosineAnnealing(Schedule, frozen=True, tag="cosine"):
    """Cosine annealing to 0, stepped after each epoch.

    Epoch e of E has `peak * (1 + cos(pi e / E)) / 2`.
    """

    def build(self, peak: float, epochs: int) -> EpochFn:  # noqa: D102 (see Schedule, as below)
        return lambda epoch: 0.5 * peak * (1 + jnp.cos(jnp.pi * epoch / epochs))


class CosineSteppedFirst(Schedule, frozen=True, tag="cosine_stepped_first"):
    """Cosine annealing that ends with an epoch at 0, as SSE-SAM and ImbSAM run it.

    Epoch e uses cosine's value of epoch e + 1.
    """

    def build(self, peak: float, epochs: int) -> EpochFn:  # noqa: D102
        annealed = CosineAnnealing().build(peak, epochs)
        return lambda epoch: annealed(epoch + 1)


class WarmupCosine(Schedule, frozen=True, tag="warmup_cosine"):
    """A rise from half the peak over the first sixteenth of the epochs, then cosine (BALMS)."""

    def build(self, peak: float, epochs: int) -> EpochFn:  # noqa: D102
        warmup = max(1, epochs // 16)
        falling = CosineAnnealing().build(peak, epochs - warmup)
        return lambda epoch: jnp.where(
            epoch < warmup, peak * (1 + epoch / warmup) / 2, falling(epoch - warmup)
        )


class MultiStep(Schedule, frozen=True, tag="multistep"):
    """Linear warm-up, then a fall after some shares of the epochs.

    With e counted from one: `peak * e / warmup` up to `warmup`. The defaults are LDAM-DRW's;
    MiSLAS and GCL fall to 0.1 and 0.01.
    """

    warmup: Count = 5
    """Epochs of linear warm-up."""
    after: tuple[Share, ...] = (0.8, 0.9)
    """Shares of the epochs after which the learning rate falls."""
    factors: tuple[NonNegative, ...] = (0.01, 0.0001)
    """Factors on the peak from then on, one for each share."""

    def __post_init__(self):
        super().__post_init__()
        holds = len(self.factors) == len(self.after)
        self.check("factors", holds, f"as many numbers as after has, {len(self.after)}")

    def build(self, peak: float, epochs: int) -> EpochFn:  # noqa: D102
        def rate(epoch: jax.Array) -> jax.Array:
            begun = epoch + 1
            rate = peak * jnp.minimum(begun / self.warmup, 1)
            for share, factor in zip(self.after, self.factors, strict=True):
                rate = jnp.where(begun > epochs * share, factor * peak, rate)
            return rate

        return rate


if TYPE_CHECKING:
    AnySchedule: TypeAlias = Schedule
else:
    AnySchedule = (
        Constant | CosineAnnealing | CosineSteppedFirst | WarmupCosine | MultiStep | CCSAMMultiStep
    )


class Optimizer(Part, frozen=True):
    """SGD with momentum, behind the method."""

    lr: NonNegative = 0.1
    """Peak learning rate."""
    schedule: AnySchedule = CosineAnnealing()
    """Learning rate by epoch."""
    momentum: BelowOne = 0.9
    """Momentum."""
    nesterov: bool = False
    """Nesterov's form of momentum."""
    weight_decay: NonNegative = 2e-4
    """Added to the final gradient as weight_decay * w, for all that is trained."""
    classifier_lr_factor: NonNegative = 1.0
    """Factor on the learning rate of the classifier's kernel and bias."""

    def build(self, clock: Clock) -> optax.GradientTransformation:
        """Builds weight decay and SGD, without the classifier's factor."""
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay),
            optax.sgd(self.rate(clock), momentum=self.momentum, nesterov=self.nesterov),
        )

    def rate(self, clock: Clock) -> optax.Schedule:
        """Builds the learning rate by step, without the classifier's factor."""
        return by_epoch(self.schedule.build(self.lr, clock.epochs), clock)


def by_epoch(value: EpochFn, clock: Clock) -> optax.Schedule:
    """Turns a function of the zero-based epoch into one of the step s, in epoch `s * B // N`."""

    def schedule(step):
        # Whole numbers: in float32 an epoch's first step could fall into the one before.
        return value((jnp.asarray(step) * clock.batch_size // clock.num_images).astype(float))

    return schedule
