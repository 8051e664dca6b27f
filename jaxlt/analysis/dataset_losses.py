"""The losses of a fixed set of images as a function of parameters: what every analysis examines."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Shaped

from jaxlt.batch.class_losses import ClassLosses, class_losses

# (theta, rest, inputs, labels) -> losses, each of its row alone
LossesFn: TypeAlias = Callable[
    [Any, Any, Shaped[Array, "batch ..."], Int[Array, " batch"]], Float[Array, " batch"]
]

_SMALLEST_BATCH = 16


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class DatasetLosses:
    """Losses of the images of a data set, as a function of parameters theta.

    No image is augmented, so that it is one function, with one Hessian. It is a pytree, to be
    handed to jitted functions as an argument. `DatasetLosses.of` makes one.

    Attributes:
        inputs: images in batches, or whatever the losses are computed from.
        labels: classes; -1 for padding.
        rest: what else the losses depend on: running statistics, frozen parameters.
        losses_fn: see `LossesFn`; each loss is a function of its own row.
        num_classes: C.

    Example:
        >>> import jax.numpy as jnp, numpy as np, jaxlt.analysis as analysis
        >>> losses_fn = lambda w, rest, inputs, labels: (inputs @ w) ** 2 / 2
        >>> losses = analysis.DatasetLosses.of(losses_fn, np.diag([2.0, 1.0]), np.array([0, 1]), 2)
        >>> print(losses.mean(jnp.ones(2)), losses.gradient(jnp.ones(2)))
        1.25 [2.  0.5]
    """

    inputs: Shaped[Array, "batches batch ..."]
    labels: Int[Array, "batches batch"]
    rest: Any
    losses_fn: LossesFn = dataclasses.field(metadata={"static": True})
    num_classes: int = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(
        cls,
        losses_fn: LossesFn,
        inputs: Shaped[np.ndarray | Array, "images ..."],
        labels: Integer[np.ndarray | Array, " images"],
        num_classes: int,
        *,
        rest: Any = None,
        batch_size: int = 128,
    ) -> "DatasetLosses":
        """Puts images on the device, in batches of which the last is padded.

        Args:
            losses_fn: see `LossesFn`.
            inputs: one for each image.
            labels: in [0, C).
            num_classes: C.
            rest: what else they depend on.
            batch_size: images that are evaluated together; a small set takes a smaller one.

        Raises:
            ValueError: there is no image, or a label is out of range.
        """
        if len(labels) == 0:
            raise ValueError("labels must be of at least one image, got none")
        if not 0 <= labels.min() <= labels.max() < num_classes:
            raise ValueError(
                f"labels must lie in 0..{num_classes - 1}, got {labels.min()} to {labels.max()}"
            )
        size = min(batch_size, max(_SMALLEST_BATCH, 2 ** math.ceil(math.log2(len(labels)))))
        missing = -len(labels) % size
        # Padded by a real image: a loss of zeros might not be finite.
        inputs = np.concatenate([inputs, np.repeat(inputs[-1:], missing, axis=0)])
        labels = np.pad(np.asarray(labels, np.int32), (0, missing), constant_values=-1)
        batches = jnp.asarray(inputs.reshape(-1, size, *inputs.shape[1:]))
        return cls(batches, jnp.asarray(labels.reshape(-1, size)), rest, losses_fn, num_classes)

    @property
    def counts(self) -> Int[np.ndarray, " classes"]:
        """Images of each class."""
        labels = np.asarray(self.labels).ravel()
        return np.bincount(labels[labels >= 0], minlength=self.num_classes)

    def of_classes(self, classes: Bool[np.ndarray, " classes"]) -> "DatasetLosses":
        """Returns the losses of the images of some classes alone.

        A ValueError says that none of them has an image.
        """
        labels = np.asarray(self.labels).ravel()
        chosen = np.flatnonzero((labels >= 0) & np.asarray(classes)[labels])
        inputs = np.asarray(self.inputs).reshape(-1, *self.inputs.shape[2:])
        of = partial(self.of, self.losses_fn, rest=self.rest, batch_size=self.labels.shape[1])
        return of(inputs[chosen], labels[chosen], self.num_classes)

    def by_class(self, theta: Any) -> ClassLosses:
        """Returns the losses summed by class; may be traced."""

        def add_batch(total: ClassLosses, batch: tuple[Array, Array]):
            return jax.tree.map(jnp.add, total, self._batch_losses(theta, *batch)), None

        zero = jax.eval_shape(lambda: self._batch_losses(theta, self.inputs[0], self.labels[0]))
        start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), zero)
        return jax.lax.scan(add_batch, start, (self.inputs, self.labels))[0]

    def mean(self, theta: Any) -> Float[Array, ""]:
        """Returns the mean loss over images; may be traced."""
        return self.by_class(theta).mean()

    def gradient(self, theta: Any) -> Any:
        """Returns the gradient of `mean`.

        Each batch is a program: XLA runs loops of convolutions backward slowly on a CPU.
        """
        return self._mean_over_batches(lambda batch: _batch_gradient(batch, theta))

    def hessian_vector_product(self, theta: Any, vector: Any) -> Any:
        """Returns the Hessian of `mean` times a vector, forward over reverse.

        Args:
            theta: parameters.
            vector: pytree like them.
        """
        return self._mean_over_batches(lambda batch: _batch_product(batch, theta, vector))

    def _batch_losses(self, theta: Any, inputs: Array, labels: Array) -> ClassLosses:
        # The losses of padding are computed with class 0 and counted to none.
        losses = self.losses_fn(theta, self.rest, inputs, jnp.maximum(labels, 0))
        return class_losses(losses, labels, self.num_classes)

    def _mean_over_batches(self, of_batch: Callable[["DatasetLosses"], Any]) -> Any:
        batches = (
            dataclasses.replace(self, inputs=self.inputs[k : k + 1], labels=self.labels[k : k + 1])
            for k in range(len(self.labels))
        )
        total = reduce(_add, map(of_batch, batches))
        size = self.counts.sum()
        return jax.tree.map(lambda leaf: leaf / size, total)


def _batch_sum(batch: DatasetLosses, theta: Any) -> Array:
    return batch._batch_losses(theta, batch.inputs[0], batch.labels[0]).sums.sum()


@jax.jit
def _batch_gradient(batch: DatasetLosses, theta: Any) -> Any:
    return jax.grad(partial(_batch_sum, batch))(theta)


@jax.jit
def _batch_product(batch: DatasetLosses, theta: Any, vector: Any) -> Any:
    gradient = jax.grad(partial(_batch_sum, batch))
    return jax.jvp(gradient, (theta,), (vector,))[1]


@jax.jit
def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)
