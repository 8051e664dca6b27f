"""The benchmark's steps in PyTorch, as one would write them there.

Only the clean pass updates the running statistics of batch norm. Where no batch norm couples the
images, a group's pass takes that group's images alone.
"""

# pyright: reportMissingImports=false, reportPrivateImportUsage=false

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from experiments.benchmark.cases import CaseName, Problem
from experiments.benchmark.timing import TimedStep, count_cores
from experiments.benchmark.torch_networks import PeerNetwork, create_network
from jaxlt import UsageError
from jaxlt.recipes.methods import CCSAM, SAM, SSESAM, FocalSAM, ImbSAM
from jaxlt.recipes.stage import Stage


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
