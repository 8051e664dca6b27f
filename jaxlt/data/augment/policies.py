"""Colour jitter, AutoAugment and RandAugment: which operations each training image undergoes.

Magnitudes grow linearly from 0 to `MAX_AMOUNTS`, the ranges of table 6 of the AutoAugment paper as
torchvision and the PyTorch code for CIFAR read it: the enhancements become 1 + amount, and a
translation is a part of the image's size. Signs are random except for posterize and solarize.
(Solarize begins at 256, where torchvision's RandAugment begins at 255.)

Each function takes any integer as a seed and int64 positions (...,) of the training stream. It
returns numbers in `OPERATIONS`, int32 (..., K), and amounts, float32 (..., K).
"""

import numpy as np

from jaxlt.data.augment.pillow_operations import MAX_AMOUNTS, OPERATIONS, UNSIGNED
from jaxlt.data.pipelines.draws import MAX_MAGNITUDE, Augmentation
from jaxlt.data.sampling.random_numbers import random_integers, random_uniforms, stream_key

_NUM_LEVELS = 10

# Operation, probability and magnitude 0..9. Cubuk et al., "AutoAugment: learning augmentation
# strategies from data", CVPR 2019, appendix, policy found on reduced CIFAR-10.
AUTOAUGMENT_CIFAR10: tuple[tuple[tuple[str, float, int], ...], ...] = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    # The reimplementations for CIFAR have 0.8 here; the paper and torchvision have 0.6.
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
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
    seed: int, positions: np.ndarray, chosen: Augmentation
) -> dict[str, np.ndarray]:
    """Draws colour jitter or policy or one after the other, two fields of `Draws`."""
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
