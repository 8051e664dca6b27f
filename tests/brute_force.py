"""The five methods written out class by class with `jax.grad` alone, as an oracle.

Nothing here comes from jaxlt: the loss is a sum over examples with example weights, a
perturbation is computed by numpy, and every group takes its own gradient calls. Classes that
are absent from the batch do not occur at all.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from small_problems import logits

Radii = Callable[[list[float], float, int], list[float]]


class Group(NamedTuple):
    """Examples' weights in the group's loss, that loss's weight, and norms -> radii."""

    weights: np.ndarray
    mix: float
    radii: Radii


class Terms(NamedTuple):
    """Examples' weights in the loss at w, and the groups perturbed."""

    clean: np.ndarray
    groups: list[Group]


@jax.jit
def weighted_loss(params, x, y, weights):
    log_p = jax.nn.log_softmax(logits(params, x))
    return -(weights * jnp.take_along_axis(log_p, y[:, None], axis=1)[:, 0]).sum()


weighted_gradient = jax.jit(jax.grad(weighted_loss))


def fixed(radius: float) -> Radii:
    return lambda norms, theta_norm, size: [radius for _ in norms]


def perturbation(params, x, y, group, scope, adaptive=False, per_leaf=False):
    theta = {name: np.asarray(params[name]) for name in scope}
    scale = {k: np.abs(w) if adaptive else np.ones_like(w) for k, w in theta.items()}
    gradient = weighted_gradient(params, x, y, group.weights)
    direction = {k: scale[k] * np.asarray(gradient[k]) for k in scope}
    if per_leaf:
        norms = [float(np.linalg.norm(direction[k])) for k in scope]
    else:
        norms = [euclidean(direction.values())]
    radii = group.radii(norms, euclidean(theta.values()), sum(w.size for w in theta.values()))
    steps = [r / n if n > 0 else 0.0 for r, n in zip(radii, norms, strict=True)]
    steps = steps if per_leaf else steps * len(scope)
    eps = {k: np.zeros_like(w) for k, w in params.items()}
    return eps | {k: s * scale[k] * direction[k] for k, s in zip(scope, steps, strict=True)}


class Result(NamedTuple):
    gradient: dict[str, jax.Array]
    perturbation_norms: list[float]
    sharpness: list[float]
    frozen_objective: Callable  # the scalar F(w) with every eps a constant


def one_equation(params, x, y, terms: Terms, *, scope=None, adaptive=False, per_leaf=False):
    scope = sorted(params) if scope is None else sorted(scope)
    eps = [perturbation(params, x, y, g, scope, adaptive, per_leaf) for g in terms.groups]

    def frozen_objective(params):
        loss = weighted_loss(params, x, y, terms.clean)
        for group, e in zip(terms.groups, eps, strict=True):
            loss += group.mix * weighted_loss(added(params, e), x, y, group.weights)
        return loss

    gradient = weighted_gradient(params, x, y, terms.clean)
    sharpness = []
    for group, e in zip(terms.groups, eps, strict=True):
        moved = added(params, e)
        there = weighted_gradient(moved, x, y, group.weights)
        gradient = {k: gradient[k] + group.mix * there[k] for k in gradient}
        before, after = (weighted_loss(p, x, y, group.weights) for p in (params, moved))
        sharpness.append(float(after - before))
    return Result(gradient, [euclidean(e.values()) for e in eps], sharpness, frozen_objective)


def sam(y, rho):
    return Terms(np.zeros(len(y)), [Group(np.ones(len(y)) / len(y), 1.0, fixed(rho))])


def imb_sam(y, counts, rho, tail_threshold, group_mean=False):
    tail = np.array([counts[label] < tail_threshold for label in y])
    head_size = tail_size = len(y)
    if group_mean:
        head_size, tail_size = max((~tail).sum(), 1), max(tail.sum(), 1)
    return Terms(~tail / head_size, [Group(tail / tail_size, 1.0, fixed(rho))])


def sse_sam(y, counts, head_rho, tail_rho, tail_threshold):
    tail = np.array([counts[label] < tail_threshold for label in y])
    head = Group(~tail / len(y), 1.0, fixed(head_rho))
    return Terms(np.zeros(len(y)), [head, Group(tail / len(y), 1.0, fixed(tail_rho))])


def focal_sam(y, counts, rho, sharpness, gamma):
    weights = np.array([sharpness * (1 - counts[c] / sum(counts)) ** gamma for c in y])
    return Terms((1 - weights) / len(y), [Group(weights / len(y), 1.0, fixed(rho))])


def characteristic_radii(count, scale, cap=None) -> Radii:
    """Equation 9 of the CC-SAM paper, with `||eps|| = sqrt(k) * rho` of equation 10."""

    def radii(norms, theta_norm, size):
        found = []
        for norm in norms:
            rho = 2**-0.5 * (theta_norm / norm) ** 0.5 * size**-0.25 if norm > 0 else 0.0
            found.append(scale * size**0.5 * rho * max(count - 1, 1) ** -0.25)
        whole = float(np.linalg.norm(found))
        if cap is not None and whole > cap * theta_norm:
            return [r * cap * theta_norm / whole for r in found]
        return found

    return radii


def cc_sam(
    y, counts, scale=1.0, flat_ratio=1.0, cap=None, weighting="sample", magnitude="characteristic"
):
    groups = []
    for label in sorted(set(np.asarray(y).tolist())):
        members = np.asarray(y) == label
        mix = members.mean() if weighting == "sample" else 1.0
        radii = characteristic_radii(counts[label], scale, cap)
        if magnitude == "constant":
            radii = fixed(scale)
        groups.append(Group(members / members.sum(), flat_ratio * mix, radii))
    return Terms(np.full(len(y), (1 - flat_ratio) / len(y)), groups)


def added(params, eps):
    return {k: params[k] + eps[k] for k in params}


def euclidean(arrays: Iterable) -> float:
    return float(np.sqrt(sum((np.asarray(a) ** 2).sum() for a in arrays)))
