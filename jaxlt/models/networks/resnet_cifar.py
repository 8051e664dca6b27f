"""ResNet for 32x32 images (He et al., CVPR 2016, section 4.2)."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer

from jaxlt.models.networks.heads import ImageClassifier, kaiming_normal
from jaxlt.models.networks.normalisation import BatchNorm, GroupNorm

# "SAME" would pad a strided convolution on one side alone; the reference pads both.
_conv3x3 = partial(
    nn.Conv, kernel_size=(3, 3), padding=1, use_bias=False, kernel_init=kaiming_normal
)


def _subsample_and_pad(x: jax.Array, width: int, stride: int) -> jax.Array:
    """The parameter-free shortcut ("option A"): every stride-th pixel, new channels zero."""
    new = width - x.shape[-1]
    x = x[:, ::stride, ::stride, :]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))


class BasicBlock(nn.Module):
    """Two normalised 3x3 convolutions, added to a shortcut.

    Attributes:
        width: Channels of the result.
        stride: Of the first convolution and the shortcut.
        norm: Makes a normalisation from its `name`.
        projection: Whether a shortcut that changes the shape is a normalised 1x1 convolution
            ("option B") or free of parameters ("option A").
        dtype: Type of the computations.
        kernel_init: Of the convolutions.
    """

    width: int
    stride: int
    norm: Callable[..., nn.Module]
    projection: bool = False
    dtype: jnp.dtype | type = jnp.float32
    kernel_init: Initializer = kaiming_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(B, H, W, channels)` to `(B, H/stride, W/stride, width)`, sides rounded up."""
        conv = partial(_conv3x3, self.width, kernel_init=self.kernel_init, dtype=self.dtype)
        y = conv(strides=self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = conv(name="conv2")(y)
        y = self.norm(name="bn2")(y)
        if x.shape == y.shape or not self.projection:
            return nn.relu(y + _subsample_and_pad(x, self.width, self.stride))
        x = conv(kernel_size=(1, 1), strides=self.stride, padding=0, name="downsample_0")(x)
        return nn.relu(y + self.norm(name="downsample_1")(x))


class CifarResNet(ImageClassifier, kw_only=True):
    """ResNet for small images: a 3x3 stem without pooling, stages of basic blocks, global mean.

    Any number of input channels and any image size will do. The defaults are ResNet-32: 464,154
    parameters with the linear head, 10 classes and 3 channels. Widths (64, 128, 256, 512), blocks
    (3, 4, 6, 3) and projections make the ResNet-34 of ImbSAM's and SSE-SAM's code.

    Attributes:
        blocks: Basic blocks in each stage.
        widths: Channels of each stage; all but the first begin with stride 2.
        projection: Shortcuts between stages, see `BasicBlock`.
        norm: "batch", or "group" for group norm with 8 groups, which leaves examples uncoupled.
    """

    blocks: tuple[int, ...] = (5, 5, 5)
    widths: tuple[int, ...] = (16, 32, 64)
    projection: bool = False
    norm: Literal["batch", "group"] = "batch"

    @property
    def couples_examples(self) -> bool:
        """Whether the norm is batch norm."""
        return self.norm == "batch"

    def _make_norm(self, train: bool) -> Callable[..., nn.Module]:
        if self.norm == "batch":
            return partial(BatchNorm, use_running_average=not train, dtype=self.dtype)
        return partial(GroupNorm, dtype=self.dtype)

    @nn.compact
    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(B, H, W, channels)` images to `(B, widths[-1])` float32 features."""
        norm = self._make_norm(train)
        x = _conv3x3(self.widths[0], dtype=self.dtype, name="conv1")(images)
        x = nn.relu(norm(name="bn1")(x))
        for stage, (width, count) in enumerate(zip(self.widths, self.blocks, strict=True)):
            for index in range(count):
                x = BasicBlock(
                    width,
                    stride=2 if stage > 0 and index == 0 else 1,
                    norm=norm,
                    projection=self.projection,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{index}",
                )(x)
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2))
