"""The methods in NumPy, from the papers' equations alone, in float64, without JAX and jaxlt.

The network is small enough for gradients by hand. Images x give features `tanh(x weights + shift)`,
and these give logits `features kernel + bias`, or `scale` times their cosines with the kernel's
columns. A method returns the gradient that it descends on, and for each of its groups the length of
the perturbation and how much the group's loss rises along it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

Params = Mapping[str, ndarray]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A batch and its loss, `-sum_k shares[i, k] factors[k] log softmax(logits_i)_k` for image i.

    Attributes:
        images: (B, D).
        shares: (B, C) of each image in each class; zeros for padding.
        factors: (C,) of each class's loss.
        scale: of the cosines, or None for a linear classifier.
        part: the part of the batch that the perturbations' directions are taken from, if not all.
    """

    images: ndarray
    shares: ndarray
    factors: ndarray
    scale: float | None
    part: "Problem | None" = None

    @property
    def counts(self) -> ndarray:
        return self.shares.sum(0)

    @property
    def size(self) -> float:
        return self.counts.sum() or 1.0

    def mean(self, params: Params) -> tuple[float, dict[str, ndarray]]:
        """Returns the batch-mean loss and its gradient."""
        return self.weighted(params, np.ones_like(self.counts) / self.size)

    def weighted(self, params: Params, of_classes: ndarray) -> tuple[float, dict[str, ndarray]]:
        """Returns `sum_c of_classes[c] S_c` and its gradient; S_c sums the losses of class c."""
        weights = self.shares @ of_classes
        features = np.tanh(self.images @ params["weights"] + params["shift"])
        rows, row_lengths = _unit(features, axis=1)
        columns, column_lengths = _unit(params["kernel"], axis=0)
        if self.scale is None:
            logits = features @ params["kernel"] + params["bias"]
        else:
            logits = self.scale * rows @ columns
        logits = logits - logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        targets = self.shares * self.factors
        loss = -(weights * (targets * log_p).sum(1)).sum()
        by_logits = targets.sum(1, keepdims=True) * np.exp(log_p) - targets
        by_logits *= weights[:, None]
        if self.scale is None:
            last = {"kernel": features.T @ by_logits, "bias": by_logits.sum(0)}
            by_features = by_logits @ params["kernel"].T
        else:
            by_rows, by_columns = by_logits @ columns.T, rows.T @ by_logits
            across = by_columns - columns * (columns * by_columns).sum(0)
            last = {"kernel": self.scale * across / column_lengths}
            across = by_rows - rows * (rows * by_rows).sum(1, keepdims=True)
            by_features = self.scale * across / row_lengths
        inner = by_features * (1 - features**2)
        return loss, {"weights": self.images.T @ inner, "shift": inner.sum(0), **last}


class Step(NamedTuple):
    """A method's gradient; of each group `||eps_g||` and its loss at `w + eps_g` less at w."""

    gradient: Mapping[str, ndarray]
    lengths: list[float]
    rises: list[float]
    bounded: float = 0.0  # share of the perturbed groups whose radius is the bound


class Scope(NamedTuple):
    """Which parameters are perturbed, and whether by their own magnitude (ASAM)."""

    names: tuple[str, ...]
    adaptive: bool = False

    def lengths(self, params: Params, direction: Params, per_leaf: bool = False) -> dict:
        """Returns, for each name, the norm of its own direction, or that of all."""
        squares = {n: ((self._magnitude(params, n) * direction[n]) ** 2).sum() for n in self.names}
        whole = sum(squares.values())
        return {n: np.sqrt(squares[n] if per_leaf else whole) for n in self.names}

    def moved(
        self, params: Params, direction: Params, radii: Mapping, lengths: Mapping
    ) -> tuple[dict[str, ndarray], float]:
        """Returns the perturbed parameters and the length of the perturbation."""
        new, squared = dict(params), 0.0
        for n in self.names:
            if lengths[n] > 0:
                eps = radii[n] * self._magnitude(params, n) ** 2 * direction[n] / lengths[n]
                new[n], squared = params[n] + eps, squared + (eps**2).sum()
        return new, np.sqrt(squared)

    def _magnitude(self, params: Params, name: str) -> ndarray | float:
        return np.abs(params[name]) if self.adaptive else 1.0


def sharpness_aware(
    problem: Problem,
    params: Params,
    scope: Scope,
    rho: Sequence[float],
    *,
    groups: ndarray,
    clean: ndarray | None,
    max_relative_radius: float | None,
) -> Step:
    """Any groups of classes: the loss at w, and for each group how much its loss changes."""
    at_rest = 1 - groups.sum(0) if clean is None else clean
    _, at_w = problem.weighted(params, at_rest / problem.size)
    norm = np.sqrt(sum((params[n] ** 2).sum() for n in scope.names))
    bound = np.inf if max_relative_radius is None else max_relative_radius * norm
    steps = [
        _group(problem, params, scope, shares, min(radius, bound))
        for shares, radius in zip(groups, rho, strict=True)
    ]
    gradients, lengths, rises = zip(*steps, strict=True)
    bounded = [radius > bound for radius, length in zip(rho, lengths, strict=True) if length > 0]
    total = _sum((1, at_w), *((1, g) for g in gradients))
    return Step(total, list(lengths), list(rises), np.mean(bounded or 0.0))


def sam(problem: Problem, params: Params, scope: Scope, rho: float) -> Step:
    """Foret et al., equations 2-3."""
    moved, length, rise = _group(problem, params, scope, np.ones_like(problem.counts), rho)
    return Step(moved, [length], [rise])


def gradient_norm_penalty(
    problem: Problem, params: Params, scope: Scope, penalty: float, rho: float
) -> Step:
    """Zhao et al., algorithm 1."""
    _, plain = problem.mean(params)
    step = sam(problem, params, scope, rho)
    between = _sum((1 - penalty / rho, plain), (penalty / rho, step.gradient))
    return step._replace(gradient=between)


def imb_sam(
    problem: Problem,
    params: Params,
    scope: Scope,
    rho: float,
    *,
    train_counts: ndarray,
    tail_threshold: float,
    group_mean: bool = False,
) -> Step:
    """Zhou et al., ICCV 2023: the tail alone is perturbed."""
    tail = np.where(train_counts < tail_threshold, 1.0, 0.0)
    head_size = tail_size = problem.size
    if group_mean:
        head_size = ((1 - tail) * problem.counts).sum() or 1.0
        tail_size = (tail * problem.counts).sum() or 1.0
    _, plain = problem.weighted(params, (1 - tail) / head_size)
    moved, length, rise = _group(problem, params, scope, tail, rho, tail_size)
    return Step(_sum((1, plain), (1, moved)), [length], [rise])


def sse_sam(
    problem: Problem,
    params: Params,
    scope: Scope,
    tail_rho: float,
    *,
    head_rho: float,
    train_counts: ndarray,
    tail_threshold: float,
    second_stage: bool,
) -> Step:
    """Lyu et al.: head and tail are perturbed apart, in the second stage the tail alone."""
    tail = np.where(train_counts < tail_threshold, 1.0, 0.0)
    head_rho = 0.0 if second_stage else head_rho
    head = _group(problem, params, scope, 1 - tail, head_rho)
    gradient, length, rise = _group(problem, params, scope, tail, tail_rho)
    return Step(_sum((1, head[0]), (1, gradient)), [head[1], length], [head[2], rise])


def focal_sam(
    problem: Problem,
    params: Params,
    scope: Scope,
    rho: float,
    *,
    train_counts: ndarray,
    sharpness_weight: float,
    gamma: float,
) -> Step:
    """Li et al., algorithm 1."""
    shares = sharpness_weight * (1 - train_counts / train_counts.sum()) ** gamma
    _, plain = problem.mean(params)
    _, at_w = problem.weighted(params, shares / problem.size)
    moved, length, rise = _group(problem, params, scope, shares, rho)
    return Step(_sum((1, plain), (-1, at_w), (1, moved)), [length], [rise])


def cc_sam(
    problem: Problem,
    params: Params,
    scope: Scope,
    radius_scale: float,
    *,
    train_counts: ndarray,
    flat_ratio: float,
    max_relative_radius: float | None,
    grad_norm: str,
    class_weighting: str,
    magnitude: str,
) -> Step:
    """Zhou et al., CVPR 2023, equations 7-11."""
    counts, per_leaf = problem.counts, grad_norm == "per_leaf"
    num_scalars = sum(params[n].size for n in scope.names)
    norm = np.sqrt(sum((params[n] ** 2).sum() for n in scope.names))
    _, plain = problem.mean(params)
    terms, lengths, rises, bounded = [(1 - flat_ratio, plain)], [], [], []
    for label, count in enumerate(counts):
        if count == 0:
            lengths.append(0.0)
            rises.append(0.0)
            continue
        mean = np.where(np.arange(counts.size) == label, 1 / count, 0.0)
        before, direction = problem.weighted(params, mean)
        norms = scope.lengths(params, direction, per_leaf)
        radii = {n: radius_scale if norms[n] > 0 else 0.0 for n in scope.names}
        if magnitude == "characteristic":
            rest = num_scalars / max(train_counts[label] - 1, 1)
            for n in scope.names:
                if norms[n] > 0:
                    radii[n] *= np.sqrt(norm / (2 * norms[n])) * rest**0.25
        one_of_each = list(radii.values())[: None if per_leaf else 1]
        whole = np.sqrt(np.square(one_of_each).sum())
        bound = np.inf if max_relative_radius is None else max_relative_radius * norm
        if whole > bound:
            radii = {n: radius * bound / whole for n, radius in radii.items()}
        moved, length = scope.moved(params, direction, radii, norms)
        after, gradient = problem.weighted(moved, mean)
        weight = count / problem.size if class_weighting == "sample" else 1.0
        terms.append((flat_ratio * weight, gradient))
        lengths.append(length)
        rises.append(after - before)
        if length > 0:
            bounded.append(whole > bound)
    return Step(_sum(*terms), lengths, rises, np.mean(bounded or 0.0))


def _group(
    problem: Problem,
    params: Params,
    scope: Scope,
    of_classes: ndarray,
    rho: float,
    size: float | None = None,
) -> tuple[dict[str, ndarray], float, float]:
    """Returns the gradient of a group's loss at its perturbed parameters, length and rise."""
    of_classes = of_classes / (size or problem.size)
    before, _ = problem.weighted(params, of_classes)
    _, direction = (problem.part or problem).weighted(params, of_classes)
    radii = dict.fromkeys(scope.names, rho)
    moved, length = scope.moved(params, direction, radii, scope.lengths(params, direction))
    after, gradient = problem.weighted(moved, of_classes)
    return gradient, length, after - before


def _unit(vectors: ndarray, axis: int) -> tuple[ndarray, ndarray]:
    """Returns vectors of length 1, and lengths; one of zeros stays so, and has gradient 0."""
    lengths = np.sqrt((vectors**2).sum(axis=axis, keepdims=True))
    lengths = np.where(lengths > 0, lengths, np.inf)
    return vectors / lengths, lengths


def _sum(*terms: tuple[float, Params]) -> dict[str, ndarray]:
    """Returns the sum of gradients, each with its factor."""
    factors, gradients = zip(*terms, strict=True)
    return {n: np.tensordot(factors, [g[n] for g in gradients], 1) for n in gradients[0]}
