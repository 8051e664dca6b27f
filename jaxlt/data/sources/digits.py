"""Handwritten digits that come with scikit-learn: the source that needs no download."""

import numpy as np

from jaxlt.data.sources.image_set import ArrayImages, LoadedImages

_MAX_INTENSITY = 16


def load_digits(image_size: int | None) -> LoadedImages:
    """Loads the 1797 digits of scikit-learn, 8 by 8 pixels of 17 grey levels.

    Every third image of a class is for testing, the others are for training. The grey levels
    are stretched to 0..255.

    Args:
        image_size: side to which the images are resized; None keeps 8.

    Returns:
        Ten classes, 1201 training and 596 test images of shape (8, 8, 1).

    References:
        E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI machine
        learning repository, 1998 (its test part).
    """
    from sklearn import datasets

    raw, labels = datasets.load_digits(return_X_y=True)
    pixels = np.rint(raw.reshape(-1, 8, 8, 1) * (255 / _MAX_INTENSITY)).astype(np.uint8)
    is_test = np.zeros(len(labels), bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[2::3]] = True
    return LoadedImages(
        class_names=tuple(str(label) for label in range(10)),
        train=ArrayImages(pixels[~is_test], labels[~is_test], image_size),
        test=ArrayImages(pixels[is_test], labels[is_test], image_size),
    )
