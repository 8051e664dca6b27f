"""Learning-rate schedules of the long-tailed literature, constant within an epoch.

An epoch is the real number of batches that the training images make, `N / B`: step s lies in
the zero-based epoch `s * B // N`.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

EpochFn = Callable[[jax.Array], jax.Array]


def by_epoch(value: EpochFn, num_images: int, batch_size: int) -> optax.Schedule:
    """Turns a function of the zero-based epoch (a float) into a schedule of the step."""

    def schedule(step):
        # Whole numbers: in float32 an epoch's first step could fall into the one before.
        return value((jnp.asarray(step) * batch_size // num_images).astype(float))

    return schedule


def constant(peak: float) -> EpochFn:
    """The same learning rate in all epochs."""
    return lambda epoch: jnp.full_like(epoch, peak)


def cosine(peak: float, epochs: int) -> EpochFn:
    """Cosine annealing stepped after each epoch: `peak * (1 + cos(pi e / E)) / 2` in epoch e."""
    return lambda epoch: 0.5 * peak * (1 + jnp.cos(jnp.pi * epoch / epochs))


def cosine_stepped_first(peak: float, epochs: int) -> EpochFn:
    """Cosine annealing stepped before each epoch, as SSE-SAM and ImbSAM run it.

    Epoch e uses cosine's value of epoch e + 1, so the last epoch has learning rate 0.
    """
    annealed = cosine(peak, epochs)
    return lambda epoch: annealed(epoch + 1)


def warmup_cosine(peak: float, epochs: int, warmup: int) -> EpochFn:
    """Linear warm-up from half the peak, then cosine annealing to 0: the schedule of BALMS."""

    def value(epoch: jax.Array) -> jax.Array:
        rising = peak * (1 + epoch / warmup) / 2
        falling = 0.5 * peak * (1 + jnp.cos(jnp.pi * (epoch - warmup) / (epochs - warmup)))
        return jnp.where(epoch < warmup, rising, falling)

    return value


def multistep(
    peak: float, *, warmup: int, after: Sequence[float], factors: Sequence[float]
) -> EpochFn:
    """Linear warm-up, then `factors[i] * peak` once more than `after[i]` epochs have begun.

    With e counted from one: `peak * e / warmup` up to `warmup`; LDAM-DRW's is warmup 5, after
    (160, 180), factors (0.01, 0.0001); MiSLAS and GCL use factors (0.1, 0.01).
    """

    def value(epoch: jax.Array) -> jax.Array:
        begun = epoch + 1
        rate = peak * jnp.minimum(begun / warmup, 1)
        for boundary, factor in zip(after, factors, strict=True):
            rate = jnp.where(begun > boundary, factor * peak, rate)
        return rate

    return value


def cc_sam_multistep(peak: float, after: Sequence[float] = (160, 180)) -> EpochFn:
    """Schedule of CC-SAM's released first stage: warm-up from a third, a tenth from 160 and 180.

    It is stepped before each epoch: with t counted from one, `peak * ((1 - t / 5) / 3 + t / 5)`
    for t below 5, and a factor 0.1 from each t of `after` on.
    """

    def value(epoch: jax.Array) -> jax.Array:
        t = epoch + 1
        warm = jnp.minimum(t / 5, 1)
        rate = peak * ((1 - warm) / 3 + warm)
        for boundary in after:
            rate = rate * jnp.where(t >= boundary, 0.1, 1)
        return rate

    return value
