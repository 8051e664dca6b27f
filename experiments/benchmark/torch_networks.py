"""The benchmark's networks in PyTorch, with as many parameters as jaxlt's.

Written from the papers that `jaxlt.models` names, as a PyTorch user would write them.
"""

# pyright: reportMissingImports=false

import torch
from torch import Tensor, nn
from torch.nn import functional

from jaxlt import UsageError


class Network(nn.Module):
    """A backbone that a subclass supplies as `features`, and a linear classifier."""

    def __init__(self, num_features: int, num_classes: int):
        super().__init__()
        self.classifier = nn.Linear(num_features, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Maps (B, channels, H, W) images to (B, D) features."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Maps (B, channels, H, W) images to (B, C) logits."""
        return self.classifier(self.features(images))


class Mlp(Network):
    """One hidden ReLU layer."""

    def __init__(self, num_classes: int, image_size: int, hidden: int = 256):
        super().__init__(hidden, num_classes)
        self.hidden = nn.Linear(3 * image_size**2, hidden)

    def features(self, images: Tensor) -> Tensor:
        """Maps (B, channels, H, W) images to (B, hidden) features."""
        return functional.relu(self.hidden(images.flatten(1)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to a parameter-free shortcut ("option A")."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.new_channels = stride, width - channels

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, channels, H, W) to (B, width, H/stride, W/stride)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.new_channels:
            before = self.new_channels // 2
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, before, self.new_channels - before))
        return functional.relu(x + y)


class CifarResNet(Network):
    """The CIFAR ResNet of depth 6n + 2."""

    def __init__(self, num_classes: int, blocks: int):
        super().__init__(64, num_classes)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        stages, channels = [], 16
        for width in (16, 32, 64):
            strides = [1 if width == channels else 2] + [1] * (blocks - 1)
            stages += [
                BasicBlock(channels if index == 0 else width, width, stride)
                for index, stride in enumerate(strides)
            ]
            channels = width
        self.blocks = nn.Sequential(*stages)

    def features(self, images: Tensor) -> Tensor:
        """Maps (B, channels, H, W) images to (B, 64) features."""
        return self.blocks(functional.relu(self.bn1(self.conv1(images)))).mean((2, 3))


class EncoderBlock(nn.Module):
    """Pre-norm self-attention and MLP, each added to its input."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp1, self.mlp2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, T, width) to the same shape."""
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, tokens, width))
        hidden = functional.gelu(self.mlp1(self.norm2(x)), approximate="tanh")
        return x + self.mlp2(hidden)


class SmallVit(Network):
    """Vision transformer on 4x4 patches, mean pooling."""

    def __init__(self, num_classes: int, image_size: int, width: int = 64, depth: int = 4):
        super().__init__(width, num_classes)
        self.embedding = nn.Conv2d(3, width, kernel_size=4, stride=4)
        self.positions = nn.Parameter(0.02 * torch.randn((image_size // 4) ** 2, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, 4, 4 * width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def features(self, images: Tensor) -> Tensor:
        """Maps (B, channels, H, W) images to (B, width) features."""
        tokens = self.embedding(images).flatten(2).transpose(1, 2)
        return self.norm(self.blocks(tokens + self.positions)).mean(1)


def create_network(name: str, num_classes: int, image_size: int) -> Network:
    """Builds the peer of `jaxlt.models.create_model`.

    Raises:
        UsageError: there is none of that name.
    """
    resnets = {f"resnet{6 * blocks + 2}": blocks for blocks in (3, 5, 7, 9, 18)}
    if name in resnets:
        return CifarResNet(num_classes, resnets[name])
    if name == "small_vit":
        return SmallVit(num_classes, image_size)
    if name == "mlp":
        return Mlp(num_classes, image_size)
    raise UsageError(
        f"network must be one of {', '.join(resnets)}, small_vit, mlp with peer torch, got {name}"
    )
