"""The benchmark's networks and steps in PyTorch, as one would write them there.

The networks have as many parameters as jaxlt's. Only the clean pass updates the running statistics
of batch norm. Where no batch norm couples the images, a group's pass takes its images alone.
"""

# pyright: reportMissingImports=false, reportPrivateImportUsage=false

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, linear, pad, relu

from experiments.benchmark.cases import CaseName, Problem
from experiments.benchmark.timing import TimedStep, count_cores
from jaxlt import UsageError
from jaxlt.recipes.methods import CCSAM, SAM, SSESAM, FocalSAM, ImbSAM
from jaxlt.recipes.stage import Stage


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
        y = relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.new_channels:
            before = self.new_channels // 2
            x = x[:, :, :: self.stride, :: self.stride]
            x = pad(x, (0, 0, 0, 0, before, self.new_channels - before))
        return relu(x + y)


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
        activation=functools.partial(gelu, approximate="tanh"),
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


def build_steps(problem: Problem, cases: Sequence[CaseName]) -> dict[CaseName, TimedStep]:
    """Builds the peer's step of each case that has one, on the kind of device that JAX uses."""
    platform = jax.default_backend()
    if platform != "cpu" and not torch.cuda.is_available():
        raise UsageError(f"peer must be built for the {platform} here, got torch without a GPU")
    device = torch.device("cpu" if platform == "cpu" else "cuda")
    torch.set_num_threads(count_cores())
    # XLA multiplies float32 in TensorFloat-32 on GPUs that have it.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    # As they lie in memory, channels last, which PyTorch's convolutions are quickest with.
    images = torch.from_numpy(problem.images).permute(0, 3, 1, 2).to(device)
    labels = torch.from_numpy(problem.labels).long().to(device)
    steps: dict[CaseName, TimedStep] = {}
    for case in cases:
        # With batch norm it takes minutes a step.
        if case == "cc_sam_all":
            continue
        network = create_network(problem.network.label, len(problem.class_counts), images.shape[-1])
        network.to(device)
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (its stub)
        trainer = Trainer(network, problem, problem.stage(case))
        steps[case] = functools.partial(trainer.step, images, labels)
    return steps


class Trainer:
    """A network, its optimizer and the gradient of the stage's method."""

    def __init__(self, network: PeerNetwork, problem: Problem, stage: Stage):
        self.network = network
        self._bfloat16 = problem.network.precision == "bfloat16"
        self._method, optimizer = stage.method, stage.optimizer
        self._params: list[Tensor] = list(network.parameters())
        self._norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        self._counts = torch.tensor(problem.class_counts, device=self._params[0].device)
        self._optimizer = torch.optim.SGD(
            self._params, optimizer.lr, optimizer.momentum, weight_decay=optimizer.weight_decay
        )

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Updates the network, waits for it, and returns the batch-mean loss before the update."""
        self._optimizer.zero_grad()
        if isinstance(self._method, CCSAM):
            loss = self._cc_sam(self._method, images, labels)
        else:
            loss = self._gradient(images, labels)
        self._optimizer.step()
        if images.is_cuda:
            torch.cuda.synchronize()
        return loss

    def _weights(self, labels: Tensor) -> tuple[Tensor | None, list[tuple[Tensor, float]]]:
        """Returns the images' weights in the clean loss, and in each perturbed one with its rho."""
        method, every = self._method, torch.ones_like(labels)
        if isinstance(method, SAM):
            return None, [(every, method.rho)]
        if isinstance(method, FocalSAM):
            prior = self._counts / self._counts.sum()
            focal = (method.sharpness_weight * (1 - prior) ** method.gamma)[labels]
            return 1 - focal, [(focal, method.rho)]
        if isinstance(method, (ImbSAM, SSESAM)):
            tail = (self._counts < method.tail_threshold)[labels]
            if isinstance(method, ImbSAM):
                return ~tail, [(tail, method.rho)]
            # In the second stage, without a radius, the head's second pass would repeat its first.
            if method.switch_at == 0:
                return ~tail, [(tail, method.tail_rho)]
            return None, [(~tail, method.head_rho), (tail, method.tail_rho)]
        return every, []

    def _gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        clean, perturbed = self._weights(labels)
        weights = [] if clean is None else [clean]
        losses = self._weighted_losses(images, labels, weights + [own for own, _ in perturbed])
        directions = [
            torch.autograd.grad(loss, self._params, retain_graph=True)
            for loss in losses[len(weights) :]
        ]
        if clean is not None:
            losses[0].backward()
        for (own, rho), direction in zip(perturbed, directions, strict=True):
            with self._perturbed(direction, rho):
                self._weighted_losses(images, labels, [own])[0].backward()
        return torch.stack(losses).sum().detach()

    def _weighted_losses(
        self, images: Tensor, labels: Tensor, weights: Sequence[Tensor]
    ) -> list[Tensor]:
        """Returns the batch-mean loss by each of several weights (B,); masks choose a group."""
        if weights[0].dtype == torch.bool and not self._norms:
            return [self._losses(images[w], labels[w]).sum() / len(labels) for w in weights]
        losses = self._losses(images, labels)
        return [(w * losses).mean() for w in weights]

    def _losses(self, images: Tensor, labels: Tensor) -> Tensor:
        logits = self.network.classifier(self._features(images))
        return cross_entropy(logits, labels, reduction="none")

    def _features(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._bfloat16):
            return self.network.features(images).float()

    @contextmanager
    def _perturbed(self, direction: Sequence[Tensor], rho: float) -> Iterator[None]:
        """Moves the parameters by rho along a direction, and back; freezes running statistics."""
        saved = [param.detach().clone() for param in self._params]
        momenta = [norm.momentum for norm in self._norms]
        for norm in self._norms:
            norm.momentum = 0.0
        scale = rho / _norm(direction).clamp(min=1e-12)
        with torch.no_grad():
            torch._foreach_add_(self._params, torch._foreach_mul(list(direction), scale))
        yield
        with torch.no_grad():
            torch._foreach_copy_(self._params, saved)
        for norm, momentum in zip(self._norms, momenta, strict=True):
            norm.momentum = momentum

    def _cc_sam(self, method: CCSAM, images: Tensor, labels: Tensor) -> Tensor:
        """Perturbs the classifier alone, so that the classes share one pass of the backbone."""
        features = self._features(images)
        loss = cross_entropy(self.network.classifier(features), labels)
        flat = torch.zeros_like(loss)
        for label in labels.unique():
            own, target = features[labels == label], labels[labels == label]
            weight, bias = self._perturbed_classifier(method, own.detach(), target)
            flat = flat + cross_entropy(linear(own, weight, bias), target, reduction="sum")
        ratio = method.flat_ratio
        ((1 - ratio) * loss + ratio * flat / len(labels)).backward()
        return loss.detach()

    def _perturbed_classifier(
        self, method: CCSAM, features: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Moves the classifier along the gradient of one class's mean loss, by CC-SAM's radius."""
        weight, bias = self.network.classifier.weight, self.network.classifier.bias
        class_mean = cross_entropy(linear(features, weight, bias), labels)
        direction = torch.autograd.grad(class_mean, (weight, bias))
        norm, size = _norm(direction), weight.numel() + bias.numel()
        theta_norm = _norm((weight.detach(), bias.detach()))
        others = (self._counts[labels[0]] - 1).clamp(min=1)
        radius = method.radius_scale * (theta_norm / (2 * norm)).sqrt() * (size / others) ** 0.25
        if method.max_relative_radius is not None:
            radius = radius.clamp(max=method.max_relative_radius * theta_norm)
        # A class without gradient is left where it is.
        factor = torch.where(norm > 0, radius / norm, 0.0)
        return weight + factor * direction[0], bias + factor * direction[1]


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
