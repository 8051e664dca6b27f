"""The benchmark's steps in PyTorch, as one would write them there: several passes, one step.

Gradients add up in the parameters; a perturbation is added in place and taken back. Only the clean
pass updates the running statistics of batch norm. Where no batch norm couples the images, a
group's pass takes that group's images alone.
"""

# pyright: reportMissingImports=false, reportPrivateImportUsage=false

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from experiments.benchmark.cases import CaseName, Problem
from experiments.benchmark.machine import count_cores
from experiments.benchmark.rounds import Step
from experiments.benchmark.torch_networks import Network, create_network
from jaxlt import UsageError
from jaxlt.recipes.methods import SSESAM
from jaxlt.recipes.part import part_name
from jaxlt.recipes.stage import Stage

# CC-SAM over all parameters is left out: with batch norm it takes minutes a step.
_WITH_PEER: tuple[CaseName, ...] = (
    "sgd",
    "sam",
    "imb_sam",
    "focal_sam",
    "sse_sam_stage1",
    "sse_sam_stage2",
    "cc_sam",
)


def build_steps(problem: Problem, cases: Sequence[CaseName]) -> dict[CaseName, Step]:
    """Builds the peer's step of each case that has one, on the kind of device that JAX uses.

    Raises:
        UsageError: PyTorch has no such network, or no GPU where JAX uses one.
    """
    device = _device()
    torch.set_num_threads(count_cores())
    # XLA multiplies float32 in TensorFloat-32 on GPUs that have it.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    # As they lie in memory, channels last, which PyTorch's convolutions are quickest with.
    images = torch.from_numpy(problem.images).permute(0, 3, 1, 2).to(device)
    labels = torch.from_numpy(problem.labels).long().to(device)
    steps: dict[CaseName, Step] = {}
    for case in _WITH_PEER:
        if case in cases:
            network = create_network(
                problem.network.label, len(problem.class_counts), images.shape[-1]
            )
            network.to(device)
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (its stub)
            trainer = trainer_of(network, problem, problem.stage(case))
            steps[case] = _blocking(trainer, images, labels)
    return steps


def _device() -> torch.device:
    platform = jax.default_backend()
    if platform == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError(f"peer was torch without a GPU, it must be built for the {platform} here")
    return torch.device("cuda")


def _blocking(trainer: "Trainer", images: Tensor, labels: Tensor) -> Step:
    def step() -> None:
        trainer.step(images, labels)
        if images.is_cuda:
            torch.cuda.synchronize()

    return step


def trainer_of(network: Network, problem: Problem, stage: Stage) -> "Trainer":
    """Returns what takes a stage's steps on the problem's batch."""
    bfloat16 = problem.network.precision == "bfloat16"
    return Trainer(network, stage, problem.class_counts, bfloat16=bfloat16)


class Trainer:
    """A network, its optimizer and the gradient of one method.

    Args:
        network: in training mode.
        stage: method, hyperparameters and momentum SGD.
        class_counts: (C,) training images of each class.
        bfloat16: whether the backbone computes in that type.
    """

    def __init__(
        self, network: Network, stage: Stage, class_counts: Sequence[int], *, bfloat16: bool = False
    ):
        self.network, self._bfloat16 = network, bfloat16
        method: Any = stage.method
        self._method, optimizer = method, stage.optimizer
        self._params: list[Tensor] = list(network.parameters())
        self._norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        self._counts = torch.tensor(class_counts, device=self._params[0].device)
        self._optimizer = torch.optim.SGD(
            self._params, optimizer.lr, optimizer.momentum, weight_decay=optimizer.weight_decay
        )
        gradients: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "sgd": self._sgd,
            "sam": self._sam,
            "imb_sam": self._imb_sam,
            "focal_sam": self._focal_sam,
            # In the second stage, without a radius, the head's second pass would repeat its first.
            "sse_sam": self._imb_sam if getattr(method, "switch_at", 1) == 0 else self._sse_sam,
            "cc_sam": self._cc_sam,
        }
        self._gradient = gradients[part_name(method)]

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Updates the network and returns the batch-mean loss before the update."""
        self._optimizer.zero_grad()
        loss = self._gradient(images, labels)
        self._optimizer.step()
        return loss

    def _sgd(self, images: Tensor, labels: Tensor) -> Tensor:
        loss = self._losses(images, labels).mean()
        loss.backward()
        return loss.detach()

    def _sam(self, images: Tensor, labels: Tensor) -> Tensor:
        loss = self._losses(images, labels).mean()
        direction = torch.autograd.grad(loss, self._params)
        with self._perturbed(direction, self._method.rho):
            self._losses(images, labels).mean().backward()
        return loss.detach()

    def _imb_sam(self, images: Tensor, labels: Tensor) -> Tensor:
        tail = self._is_tail(labels)
        rho = self._method.tail_rho if isinstance(self._method, SSESAM) else self._method.rho
        tail_loss, head_loss = self._group_losses(images, labels, [tail, ~tail])
        direction = torch.autograd.grad(tail_loss, self._params, retain_graph=True)
        head_loss.backward()
        with self._perturbed(direction, rho):
            self._group_losses(images, labels, [tail])[0].backward()
        return (head_loss + tail_loss).detach()

    def _sse_sam(self, images: Tensor, labels: Tensor) -> Tensor:
        tail = self._is_tail(labels)
        groups = [~tail, tail]
        losses = self._group_losses(images, labels, groups)
        directions = [torch.autograd.grad(loss, self._params, retain_graph=True) for loss in losses]
        radii = (self._method.head_rho, self._method.tail_rho)
        for group, direction, rho in zip(groups, directions, radii, strict=True):
            with self._perturbed(direction, rho):
                self._group_losses(images, labels, [group])[0].backward()
        return sum(losses, start=torch.zeros_like(losses[0])).detach()

    def _focal_sam(self, images: Tensor, labels: Tensor) -> Tensor:
        prior = self._counts / self._counts.sum()
        weights = (self._method.sharpness_weight * (1 - prior) ** self._method.gamma)[labels]
        losses = self._losses(images, labels)
        direction = torch.autograd.grad((weights * losses).mean(), self._params, retain_graph=True)
        ((1 - weights) * losses).mean().backward()
        with self._perturbed(direction, self._method.rho):
            (weights * self._losses(images, labels)).mean().backward()
        return losses.detach().mean()

    def _cc_sam(self, images: Tensor, labels: Tensor) -> Tensor:
        """Perturbs the classifier alone, so that the classes share one pass of the backbone."""
        with self._autocast(images):
            features = self.network.features(images)
        features = features.float()
        classifier = self.network.classifier
        loss = cross_entropy(classifier(features), labels)
        flat = torch.zeros_like(loss)
        for label in labels.unique():
            own, target = features[labels == label], labels[labels == label]
            weight, bias = self._perturbed_classifier(own.detach(), target)
            flat = flat + cross_entropy(linear(own, weight, bias), target, reduction="sum")
        ratio = self._method.flat_ratio
        ((1 - ratio) * loss + ratio * flat / len(labels)).backward()
        return loss.detach()

    def _perturbed_classifier(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Moves the classifier along the gradient of one class's mean loss, by CC-SAM's radius."""
        weight, bias = self.network.classifier.weight, self.network.classifier.bias
        class_mean = cross_entropy(linear(features, weight, bias), labels)
        direction = torch.autograd.grad(class_mean, (weight, bias))
        norm, size = _norm(direction), weight.numel() + bias.numel()
        theta_norm = _norm((weight.detach(), bias.detach()))
        others = (self._counts[labels[0]] - 1).clamp(min=1)
        radius = (
            self._method.radius_scale * (theta_norm / (2 * norm)).sqrt() * (size / others) ** 0.25
        )
        if self._method.max_relative_radius is not None:
            radius = radius.clamp(max=self._method.max_relative_radius * theta_norm)
        # A class without gradient is left where it is.
        factor = torch.where(norm > 0, radius / norm, 0.0)
        return weight + factor * direction[0], bias + factor * direction[1]

    def _losses(self, images: Tensor, labels: Tensor) -> Tensor:
        with self._autocast(images):
            features = self.network.features(images)
        return cross_entropy(self.network.classifier(features.float()), labels, reduction="none")

    def _autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, torch.bfloat16, enabled=self._bfloat16)

    def _is_tail(self, labels: Tensor) -> Tensor:
        return (self._counts < self._method.tail_threshold)[labels]

    def _group_losses(
        self, images: Tensor, labels: Tensor, groups: Sequence[Tensor]
    ) -> list[Tensor]:
        """Returns, for each group's mask (B,), its sum of losses divided by the batch size."""
        if self._norms:
            losses = self._losses(images, labels)
            return [losses[group].sum() / len(labels) for group in groups]
        return [self._losses(images[group], labels[group]).sum() / len(labels) for group in groups]

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


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
