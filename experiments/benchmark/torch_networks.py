"""The benchmark's networks as one writes them in PyTorch, with as many parameters as jaxlt's."""

# pyright: reportMissingImports=false

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

from jaxlt import UsageError


class PeerNetwork(nn.Module):
    """A backbone, from (B, channels, H, W) images to (B, D) features, and a linear classifier."""

    def __init__(self, features: nn.Module, num_features: int, num_classes: int):
        super().__init__()
        self.features = features
        self.classifier = nn.Linear(num_features, num_classes)


class TorchBasicBlock(nn.Module):
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


def cifar_resnet(blocks: int) -> nn.Module:
    """Builds the CIFAR ResNet of depth 6n + 2, n being the blocks of a stage."""
    layers = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    for channels, width, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
        layers.append(TorchBasicBlock(channels, width, stride))
        layers += [TorchBasicBlock(width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class SmallVit(nn.Module):
    """Vision transformer on 4x4 patches, mean pooling."""

    def __init__(self, image_size: int):
        super().__init__()
        self.embedding = nn.Conv2d(3, 64, kernel_size=4, stride=4)
        self.positions = nn.Parameter(0.02 * torch.randn((image_size // 4) ** 2, 64))
        self.blocks = nn.Sequential(*(_encoder_block(64) for _ in range(4)))
        self.norm = nn.LayerNorm(64, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Maps (B, channels, H, W) images to (B, 64) features."""
        tokens = self.embedding(images).flatten(2).transpose(1, 2)
        return self.norm(self.blocks(tokens + self.positions)).mean(1)


def _encoder_block(width: int) -> nn.Module:
    return nn.TransformerEncoderLayer(
        width,
        nhead=4,
        dim_feedforward=4 * width,
        dropout=0.0,
        activation=functools.partial(functional.gelu, approximate="tanh"),
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
    )


def create_network(name: str, num_classes: int, image_size: int) -> PeerNetwork:
    """Builds the peer of `jaxlt.models.create_model`; raises UsageError where there is none."""
    resnets = {f"resnet{6 * blocks + 2}": blocks for blocks in (3, 5, 7, 9, 18)}
    if name in resnets:
        return PeerNetwork(cifar_resnet(resnets[name]), 64, num_classes)
    if name == "small_vit":
        return PeerNetwork(SmallVit(image_size), 64, num_classes)
    if name == "mlp":
        hidden = nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, 256), nn.ReLU())
        return PeerNetwork(hidden, 256, num_classes)
    raise UsageError(
        f"network must be one of {', '.join(resnets)}, small_vit, mlp with peer torch, got {name}"
    )
