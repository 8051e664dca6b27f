"""Distributions over the classes of a split, from which samplers draw.

Each is a float64 array (C,) that sums to 1, in which a class without an image has probability 0.
`class_counts` is the integer array (C,) of the images that the split has of each class.
"""

import numpy as np


def instance_probabilities(class_counts: np.ndarray) -> np.ndarray:
    """Returns n_c / N: every image is equally likely."""
    return class_counts / class_counts.sum()


def square_root_probabilities(class_counts: np.ndarray) -> np.ndarray:
    """Returns probabilities proportional to the square root of n_c.

    References:
        Mahajan et al., "Exploring the limits of weakly supervised pretraining", ECCV 2018.
    """
    return instance_probabilities(np.sqrt(class_counts))


def balanced_probabilities(class_counts: np.ndarray) -> np.ndarray:
    """Returns 1 / C for the C classes that have images."""
    return instance_probabilities(class_counts > 0)


def progressive_probabilities(class_counts: np.ndarray, epoch: int, num_epochs: int) -> np.ndarray:
    """Returns (1 - t) n_c / N + t / C, where t = epoch / (num_epochs - 1) goes from 0 to 1.

    Args:
        class_counts: integer array (C,).
        epoch: counted from 0; those beyond the last are balanced like it.
        num_epochs: length of the training; a single epoch is balanced.

    Returns:
        Probabilities, float64 (C,).

    References:
        Kang et al., "Decoupling representation and classifier for long-tailed recognition",
        ICLR 2020.
    """
    balance = min(epoch / (num_epochs - 1), 1.0) if num_epochs > 1 else 1.0
    instance = instance_probabilities(class_counts)
    return (1 - balance) * instance + balance * balanced_probabilities(class_counts)


def effective_number_probabilities(class_counts: np.ndarray, beta: float = 0.9999) -> np.ndarray:
    """Returns probabilities proportional to n_c (1 - beta) / (1 - beta**n_c).

    Each image is weighted by the inverse of its class's effective number.

    Args:
        class_counts: integer array (C,).
        beta: in [0, 1); 0 makes all images equally likely, and near 1 all classes are.

    Returns:
        Probabilities, float64 (C,).

    References:
        Cui et al., "Class-balanced loss based on effective number of samples", CVPR 2019. Cao
        et al., "Learning imbalanced datasets with label-distribution-aware margin loss",
        NeurIPS 2019, release a sampler with these weights of images.
    """
    effective_numbers = (1 - beta**class_counts) / (1 - beta)
    # The class without an image has effective number 0, and must have no weight.
    weights = 1 / np.where(class_counts > 0, effective_numbers, 1)
    return instance_probabilities(class_counts * weights)
