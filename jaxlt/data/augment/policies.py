"""Color jitter, AutoAugment and RandAugment: which operations each training image undergoes.

Magnitudes grow linearly from 0 to `MAX_AMOUNTS`, the ranges of table 6 of the AutoAugment paper as
torchvision and the PyTorch code for CIFAR read it: the enhancements become 1 + amount, and a
translation is a part of the image's size. Signs are random except for posterize and solarize.
(Solarize begins at 256, where torchvision's RandAugment begins at 255.)

Each function takes any integer as a seed and int64 positions (...,) of the training stream. It
returns numbers in `OPERATIONS`, int32 (..., K), and amounts, float32 (..., K).
"""

from importlib import resources

import numpy as np

from jaxlt.data.augment.pillow_operations import MAX_AMOUNTS, OPERATIONS, UNSIGNED
from jaxlt.data.pipelines.draws import MAX_MAGNITUDE, ImageAugmentation
from jaxlt.data.sampling.random_numbers import random_integers, random_uniforms, stream_key
from jaxlt.files.foreign_files import parse_json

_NUM_LEVELS = 10

# Sub-policies: operations, probabilities, magnitudes 0..9. Cubuk et al., "AutoAugment: learning
# augmentation strategies from data", CVPR 2019, appendix, policy found on reduced CIFAR-10. (For
# 0.6 in the 17th the reimplementations for CIFAR have 0.8; torchvision has 0.6 too.)
AUTOAUGMENT_CIFAR10: tuple[tuple[tuple[str, float, int], ...], ...] = tuple(
    tuple((name, chance, level) for name, chance, level in row)
    for row in parse_json(
        resources.files("jaxlt.data.augment")
        .joinpath("autoaugment_cifar10.json")
        .read_text("utf-8")
    )
)

# All but invert: Cubuk et al., "RandAugment: practical automated data augmentation with a
# reduced search space", NeurIPS 2020, section 3.
RANDAUGMENT = tuple(name for name in OPERATIONS if name != "invert")

_NUMBERS = {name: number for number, name in enumerate(OPERATIONS)}
_IDENTITY = _NUMBERS["identity"]
_JITTER = np.array([_NUMBERS[name] for name in ("brightness", "contrast", "color")], np.int32)
_SIGNED = np.array([name in MAX_AMOUNTS and name not in UNSIGNED for name in OPERATIONS])
_MAX_AMOUNTS = np.array([MAX_AMOUNTS.get(name, 0.0) for name in OPERATIONS])
_SUB_POLICIES = np.array([[_NUMBERS[name] for name, _, _ in row] for row in AUTOAUGMENT_CIFAR10])
_PROBABILITIES = np.array([[chance for _, chance, _ in row] for row in AUTOAUGMENT_CIFAR10])
_LEVELS = np.array([[level for _, _, level in row] for row in AUTOAUGMENT_CIFAR10])


def draw_operations(
    seed: int, positions: np.ndarray, chosen: ImageAugmentation
) -> dict[str, np.ndarray]:
    """Draws color jitter or policy or one after the other, two fields of `Draws`."""
    drawn = []
    if chosen.color_jitter:
        drawn.append(draw_color_jitter(seed, positions, chosen.color_jitter))
    if chosen.policy == "autoaugment":
        drawn.append(draw_autoaugment(seed, positions))
    elif chosen.policy == "randaugment":
        count, magnitude = chosen.randaugment_ops, chosen.randaugment_magnitude
        drawn.append(draw_randaugment(seed, positions, count, magnitude))
    operations, amounts = (np.concatenate(x, axis=-1) for x in zip(*drawn, strict=True))
    return {"operations": operations, "amounts": amounts}


def draw_color_jitter(
    seed: int, positions: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draws torchvision's `ColorJitter` with three equal strengths, at most 1, and no hue."""
    slots = _slots(positions, len(_JITTER))
    order = np.argsort(random_uniforms(stream_key(seed, "jitter order"), slots), axis=-1)
    uniforms = random_uniforms(stream_key(seed, "jitter factor"), slots)
    return _JITTER[order], (strength * (2 * uniforms - 1)).astype(np.float32)


def draw_autoaugment(seed: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws a sub-policy of `AUTOAUGMENT_CIFAR10`, whether each operation is applied, and signs."""
    key = stream_key(seed, "autoaugment sub-policy")
    rows = random_integers(key, positions, len(AUTOAUGMENT_CIFAR10))
    slots = _slots(positions, 2)
    uniforms = random_uniforms(stream_key(seed, "autoaugment probability"), slots)
    signs = stream_key(seed, "autoaugment sign")
    operations = np.where(uniforms < _PROBABILITIES[rows], _SUB_POLICIES[rows], _IDENTITY)
    return _with_amounts(operations, _LEVELS[rows] / (_NUM_LEVELS - 1), signs, slots)


def draw_randaugment(
    seed: int, positions: np.ndarray, num_ops: int, magnitude: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws N operations of 14 for each example, uniformly and with replacement, of magnitude M."""
    slots = _slots(positions, num_ops)
    chosen = random_integers(stream_key(seed, "randaugment operation"), slots, len(RANDAUGMENT))
    operations = np.array([_NUMBERS[name] for name in RANDAUGMENT])[chosen]
    signs = stream_key(seed, "randaugment sign")
    return _with_amounts(operations, magnitude / MAX_MAGNITUDE, signs, slots)


def _slots(positions: np.ndarray, num_ops: int) -> np.ndarray:
    return positions[..., np.newaxis] * num_ops + np.arange(num_ops)


def _with_amounts(
    operations: np.ndarray, strength: np.ndarray | float, sign_key: int, slots: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Adds the amounts for a strength in [0, 1], with a sign where the operation has one."""
    signs = np.where(_SIGNED[operations], 1 - 2 * random_integers(sign_key, slots, 2), 1)
    amounts = _MAX_AMOUNTS[operations] * strength * signs
    return operations.astype(np.int32), amounts.astype(np.float32)
