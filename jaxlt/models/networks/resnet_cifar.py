"""ResNet for 32x32 images (He et al., CVPR 2016, section 4.2)."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer

from jaxlt.models.networks.convolution import BatchNorm, Conv
from jaxlt.models.networks.heads import ImageClassifier, kaiming_normal
from jaxlt.models.networks.layer_norm import GroupNorm

# "SAME" would pad a strided convolution on one side alone; the reference pads both.
_conv3x3 = partial(Conv, kernel_size=(3, 3), padding=1, use_bias=False)


def _subsample_and_pad(x: jax.Array, width: int, stride: int) -> jax.Array:
    """The parameter-free shortcut: every stride-th pixel, new channels zero."""
    new = width - x.shape[-1]
    sides = (new // 2, new - new // 2)
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), sides))


class BasicBlock(nn.Module):
    """Two normalized 3x3 convolutions of `width` channels, the first with the stride.

    They are added to a shortcut, which is free of parameters where it changes the shape ("option
    A"), or with `projection` a normalized 1x1 convolution ("option B").
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
        y = nn.relu(self.norm(name="bn1")(conv(strides=self.stride, name="conv1")(x)))
        y = self.norm(name="bn2")(conv(name="conv2")(y))
        if x.shape == y.shape or not self.projection:
            return nn.relu(y + _subsample_and_pad(x, self.width, self.stride))
        x = conv(kernel_size=(1, 1), strides=self.stride, padding=0, name="downsample_0")(x)
        return nn.relu(y + self.norm(name="downsample_1")(x))


class CifarResNet(ImageClassifier, kw_only=True):
    """ResNet for small images: a 3x3 stem without pooling, stages of basic blocks, global mean.

    Any number of input channels and any image size will do. The defaults are ResNet-32: 464,154
    parameters with the linear head, 10 classes and 3 channels.

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

    @nn.compact
    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(B, H, W, channels)` images to `(B, widths[-1])` float32 features."""
        norm = partial(GroupNorm, dtype=self.dtype)
        if self.norm == "batch":
            norm = partial(BatchNorm, use_running_average=not train, dtype=self.dtype)
        stem = _conv3x3(self.widths[0], kernel_init=kaiming_normal, dtype=self.dtype, name="conv1")
        x = nn.relu(norm(name="bn1")(stem(images)))
        for stage, (width, count) in enumerate(zip(self.widths, self.blocks, strict=True)):
            for index in range(count):
                name = f"layer{stage + 1}_{index}"
                stride = 2 if stage > 0 and index == 0 else 1
                x = BasicBlock(width, stride, norm, self.projection, self.dtype, name=name)(x)
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2))
