"""Classes numbered anew, from the largest to the smallest."""

import numpy as np

from jaxlt.data.sources.image_set import LoadedImages


def relabelled_by_size(loaded: LoadedImages) -> tuple[LoadedImages, tuple[int, ...]]:
    """Numbers the classes by their training images, the largest first, equal ones in old order.

    Returns the images, whose labels are changed in place, and the numbers of before.
    """
    counts = np.bincount(loaded.train.labels, minlength=len(loaded.class_names))
    old = np.argsort(-counts, kind="stable")
    # Label -1, of no class, finds the last entry and stays.
    labels = np.full(len(old) + 1, -1, np.int32)
    labels[old] = np.arange(len(old))
    for images in (loaded.train, loaded.test, loaded.val, loaded.open):
        if images is not None:
            images.labels = labels[images.labels]
    class_names = tuple(loaded.class_names[number] for number in old)
    return loaded._replace(class_names=class_names), tuple(old.tolist())
