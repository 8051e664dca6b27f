"""ResNet for 32x32 images (He et al., CVPR 2016, section 4.2)."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.models.batch_norm import BatchNorm
from jaxlt.models.heads import ImageClassifier, kaiming_normal

_STAGE_WIDTHS = (16, 32, 64)


def _conv3x3(width: int, stride: int, dtype, name: str) -> nn.Conv:
    return nn.Conv(
        width,
        (3, 3),
        strides=stride,
        # "SAME" would pad a strided convolution on one side alone; the reference pads both.
        padding=1,
        use_bias=False,
        kernel_init=kaiming_normal,
        dtype=dtype,
        name=name,
    )


def _subsample_and_pad(x: jax.Array, width: int, stride: int) -> jax.Array:
    """The parameter-free shortcut ("option A"): every stride-th pixel, new channels zero."""
    new = width - x.shape[-1]
    x = x[:, ::stride, ::stride, :]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to a parameter-free shortcut."""

    width: int
    stride: int
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(B, H, W, channels)` to `(B, H/stride, W/stride, width)`, sides rounded up."""
        norm = partial(BatchNorm, use_running_average=not train, dtype=self.dtype)
        y = _conv3x3(self.width, self.stride, self.dtype, "conv1")(x)
        y = nn.relu(norm(name="bn1")(y))
        y = norm(name="bn2")(_conv3x3(self.width, 1, self.dtype, "conv2")(y))
        return nn.relu(y + _subsample_and_pad(x, self.width, self.stride))


class CifarResNet(ImageClassifier, kw_only=True):
    """CIFAR ResNet: a 3x3 stem, three stages of widths 16, 32, 64, and a global mean.

    Any number of input channels and any image size will do. ResNet-32, five blocks a stage, has
    464,154 parameters with the linear head, 10 classes and 3 channels.

    Attributes:
        blocks: Basic blocks in each stage; depth is 2 * sum(blocks) + 2.
    """

    blocks: tuple[int, int, int] = (5, 5, 5)

    @nn.compact
    def features(self, images: chex.Array, *, train: bool) -> chex.Array:
        """Maps `(B, H, W, channels)` images to `(B, 64)` float32 features."""
        x = _conv3x3(_STAGE_WIDTHS[0], 1, self.dtype, "conv1")(images)
        x = BatchNorm(use_running_average=not train, dtype=self.dtype, name="bn1")(x)
        x = nn.relu(x)
        for stage, (width, count) in enumerate(zip(_STAGE_WIDTHS, self.blocks, strict=True)):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                name = f"layer{stage + 1}_{index}"
                x = BasicBlock(width, stride, self.dtype, name=name)(x, train=train)
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2))
