"""ResNet and ResNeXt for ImageNet-sized images (He et al., CVPR 2016; Xie et al., CVPR 2017)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.models.networks.convolution import BatchNorm, Conv
from jaxlt.models.networks.heads import ImageClassifier
from jaxlt.models.networks.resnet_cifar import BasicBlock

IMAGENET: dict[str, dict[str, Any]] = {
    "resnet10": {"blocks": (1, 1, 1, 1), "bottleneck": False},
    "resnet50": {"blocks": (3, 4, 6, 3)},
    "resnet101": {"blocks": (3, 4, 23, 3)},
    "resnet152": {"blocks": (3, 8, 36, 3)},
    "resnext50_32x4d": {"blocks": (3, 4, 6, 3), "groups": 32, "width_per_group": 4},
}
"""Fields of `ResNet`, by the network's name."""

# N(0, 2 / (height * width * output channels)), untruncated, as torchvision draws convolutions.
_kaiming_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_conv = partial(Conv, use_bias=False, kernel_init=_kaiming_normal_fan_out)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution, each normalized, added to a shortcut.

    The stride is the 3x3 convolution's, as in torchvision ("v1.5"; the paper has it on the first
    1x1). A shortcut that changes the shape is a normalized 1x1 convolution.

    The first two convolutions have `inner` channels, those of the 3x3 one in `groups`.
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
        conv = partial(_conv, dtype=self.dtype)
        y = nn.relu(self.norm(name="bn1")(conv(self.inner, (1, 1), name="conv1")(x)))
        # "SAME" would pad a strided convolution on one side alone.
        conv3x3 = partial(conv, padding=1, feature_group_count=self.groups)
        y = conv3x3(self.inner, (3, 3), strides=self.stride, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.norm(name="bn3")(conv(self.width, (1, 1), name="conv3")(y))
        if self.stride > 1 or x.shape[-1] != self.width:
            x = conv(self.width, (1, 1), strides=self.stride, name="downsample_0")(x)
            x = self.norm(name="downsample_1")(x)
        return nn.relu(y + x)


class ResNet(ImageClassifier, kw_only=True):
    """ResNet with a 7x7 stem of stride 2, 3x3 max pooling, four stages and a global mean.

    Parameters have torchvision's names with "_" for ".", and its shapes. Any image size will do.
    For ResNet-50 and others see `jaxlt.models.create`; ResNet-10, with blocks (1, 1, 1, 1) and no
    bottlenecks, is that of OLTR (Liu et al., CVPR 2019).

    Attributes:
        blocks: Blocks in each stage; all stages but the first begin with stride 2.
        bottleneck: Whether blocks are `Bottleneck`, four times as wide at their end, or
            `BasicBlock` with projections.
        width: Channels of the stem; each stage after the first doubles them.
        groups: Of each bottleneck's 3x3 convolution (ResNeXt's cardinality).
        width_per_group: Its channels in each group where `width` is 64, in the first stage.
        remat: Keeps the input of each block alone and computes the rest again in the backward
            pass: less memory for about a third more work, and the same results.
        frozen_backbone_norm: In training, batch norm below the last block normalizes by its running
            statistics, which stay.
    """

    blocks: tuple[int, ...]
    bottleneck: bool = True
    width: int = 64
    groups: int = 1
    width_per_group: int = 64
    remat: bool = False
    frozen_backbone_norm: bool = False

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
        held = not train or self.frozen_backbone_norm
        backbone_norm = partial(batch_norm, use_running_average=held)
        stem = _conv(self.width, (7, 7), strides=2, padding=3, dtype=self.dtype, name="conv1")
        x = nn.relu(backbone_norm(name="bn1")(stem(images)))
        # Zeros change no maximum of what relu gives, and jax2onnx knows no other padding.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = nn.max_pool(x, window_shape=(3, 3), strides=(2, 2))
        places = [(stage, index) for stage, n in enumerate(self.blocks) for index in range(n)]
        for stage, index in places[:-1]:
            x = self._block(stage, index, backbone_norm)(x)
        x = self._block(*places[-1], partial(batch_norm, use_running_average=not train))(x)
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2))

    def _block(self, stage: int, index: int, norm: Callable[..., nn.Module]) -> nn.Module:
        make = Bottleneck if self.bottleneck else BasicBlock
        width = self.width * 2**stage
        shape = {"width": width, "projection": True, "kernel_init": _kaiming_normal_fan_out}
        if self.bottleneck:
            inner = int(width * self.width_per_group / 64) * self.groups
            shape = {"width": 4 * width, "inner": inner, "groups": self.groups}
        name = f"layer{stage + 1}_{index}"
        stride = 2 if stage > 0 and index == 0 else 1
        make = nn.remat(make) if self.remat else make
        return make(**shape, stride=stride, norm=norm, dtype=self.dtype, name=name)
