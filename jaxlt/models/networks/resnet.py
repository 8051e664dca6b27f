"""ResNet and ResNeXt for ImageNet-sized images (He et al., CVPR 2016; Xie et al., CVPR 2017)."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.models.networks.heads import ImageClassifier
from jaxlt.models.networks.normalisation import BatchNorm
from jaxlt.models.networks.resnet_cifar import BasicBlock

# N(0, 2 / (height * width * output channels)), untruncated, as torchvision draws convolutions.
kaiming_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution, each normalised, added to a shortcut.

    The stride is the 3x3 convolution's, as in torchvision ("v1.5"; the paper has it on the first
    1x1). A shortcut that changes the shape is a normalised 1x1 convolution.

    Attributes:
        width: Channels of the result.
        inner: Channels of the first two convolutions.
        stride: Of the 3x3 convolution and the shortcut.
        groups: Of the 3x3 convolution's channels, a divisor of `inner`.
        norm: Makes a normalisation from its `name`.
        dtype: Type of the computations.
    """

    width: int
    inner: int
    stride: int
    norm: Callable[..., nn.Module]
    groups: int = 1
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(B, H, W, channels)` to `(B, H/stride, W/stride, width)`, sides rounded up."""
        conv = partial(
            nn.Conv, use_bias=False, kernel_init=kaiming_normal_fan_out, dtype=self.dtype
        )
        y = nn.relu(self.norm(name="bn1")(conv(self.inner, (1, 1), name="conv1")(x)))
        y = conv(
            self.inner,
            (3, 3),
            strides=self.stride,
            # "SAME" would pad a strided convolution on one side alone.
            padding=1,
            feature_group_count=self.groups,
            name="conv2",
        )(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.norm(name="bn3")(conv(self.width, (1, 1), name="conv3")(y))
        if self.stride > 1 or x.shape[-1] != self.width:
            x = conv(self.width, (1, 1), strides=self.stride, name="downsample_0")(x)
            x = self.norm(name="downsample_1")(x)
        return nn.relu(y + x)


class ResNet(ImageClassifier, kw_only=True):
    """ResNet with a 7x7 stem of stride 2, 3x3 max pooling, four stages and a global mean.

    Parameters have torchvision's names with "_" for ".", and its shapes. Any image size will do.
    Blocks (3, 4, 6, 3) make ResNet-50, and ResNeXt-50 32x4d with groups=32 and width_per_group=4;
    (3, 4, 23, 3) and (3, 8, 36, 3) make ResNet-101 and ResNet-152; (1, 1, 1, 1) without bottlenecks
    the ResNet-10 of OLTR (Liu et al., CVPR 2019).

    Attributes:
        blocks: Blocks in each stage; all stages but the first begin with stride 2.
        bottleneck: Whether blocks are `Bottleneck`, four times as wide at their end, or
            `BasicBlock` with projections.
        width: Channels of the stem; each stage after the first doubles them.
        groups: Of each bottleneck's 3x3 convolution (ResNeXt's cardinality).
        width_per_group: Its channels in each group where `width` is 64, in the first stage.
        remat: Keeps the input of each block alone for the backward pass and computes the rest
            again there: less memory for about a third more work, and the same results.
        frozen_trunk_norm: In training, batch norm below the last block normalises by its running
            statistics, which stay.
    """

    blocks: tuple[int, ...]
    bottleneck: bool = True
    width: int = 64
    groups: int = 1
    width_per_group: int = 64
    remat: bool = False
    frozen_trunk_norm: bool = False

    @property
    def couples_examples(self) -> bool:
        """True."""
        return True

    @nn.compact
    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(B, H, W, channels)` images to `(B, D)` float32 features.

        D is 32 times the stem's width with bottlenecks, 8 times without, for four stages.
        """
        batch_norm = partial(BatchNorm, dtype=self.dtype)
        trunk_norm = partial(batch_norm, use_running_average=not train or self.frozen_trunk_norm)
        x = nn.Conv(
            self.width,
            (7, 7),
            strides=2,
            padding=3,
            use_bias=False,
            kernel_init=kaiming_normal_fan_out,
            dtype=self.dtype,
            name="conv1",
        )(images)
        x = nn.relu(trunk_norm(name="bn1")(x))
        sides = ((1, 1), (1, 1))
        # Flax's annotation is that of its default, "VALID".
        x = nn.max_pool(x, (3, 3), (2, 2), sides)  # pyright: ignore[reportArgumentType]
        places = [(stage, index) for stage, n in enumerate(self.blocks) for index in range(n)]
        for stage, index in places[:-1]:
            x = self._block(stage, index, trunk_norm)(x)
        x = self._block(*places[-1], partial(batch_norm, use_running_average=not train))(x)
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2))

    def _block(self, stage: int, index: int, norm: Callable[..., nn.Module]) -> nn.Module:
        make = Bottleneck if self.bottleneck else BasicBlock
        width = self.width * 2**stage
        shape = (
            {"width": 4 * width, "inner": self._inner(stage), "groups": self.groups}
            if self.bottleneck
            else {"width": width, "projection": True, "kernel_init": kaiming_normal_fan_out}
        )
        return (nn.remat(make) if self.remat else make)(
            **shape,
            stride=2 if stage > 0 and index == 0 else 1,
            norm=norm,
            dtype=self.dtype,
            name=f"layer{stage + 1}_{index}",
        )

    def _inner(self, stage: int) -> int:
        return int(self.width * 2**stage * self.width_per_group / 64) * self.groups
