"""Long-tailed trees of JPEG files in the layouts of the published sets, with their list files."""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

_SUPER_CLASSES = ("Actinopterygii", "Amphibia", "Aves", "Insecta", "Mammalia", "Plantae")
_LIST_NAMES = {"imagenet": "ImageNet_LT", "places": "Places_LT", "inaturalist": "iNaturalist18"}
_TEXTURE = 1024


@dataclasses.dataclass(frozen=True)
class JpegTree:
    """A tree of image files and its list files; None where the published set has no such list."""

    root: Path
    train: Path
    val: Path | None
    test: Path
    open: Path | None

    @property
    def spec(self) -> str:
        """The source as a flag; without a list VAL the test set is the second."""
        lists = [self.train, *([self.val] if self.val else []), self.test]
        return "list:" + ",".join(
            map(str, [self.root, *lists, *([self.open] if self.open else [])])
        )


def long_tail(num_classes: int, largest: int, smallest: int) -> tuple[int, ...]:
    """Returns exponentially falling class counts."""
    exponents = np.arange(num_classes) / max(num_classes - 1, 1)
    return tuple((largest * (smallest / largest) ** exponents).round().astype(int).tolist())


def write_tree(
    root: Path,
    layout: str,
    counts: Sequence[int],
    *,
    evaluated_per_class: int = 2,
    open_images: int = 0,
    sizes: tuple[tuple[int, int], tuple[int, int]] = ((24, 48), (24, 48)),
    quality: int = 90,
    newline: str = "\n",
    seed: int = 0,
) -> JpegTree:
    """Writes images that a network can tell apart by color, under noise that is hard to compress.

    Args:
        root: directory for images and lists.
        layout: imagenet, places or inaturalist. The last has no validation and no open list.
        counts: training images of each class.
        evaluated_per_class: validation and test images of each class.
        open_images: images of no class, whose label is -1.
        sizes: ranges of heights and widths, both ends included.
        quality: of the JPEG files.
        newline: at the end of each line of the lists.
        seed: of sizes and pixels.
    """
    random = np.random.default_rng(seed)
    texture = _texture(random)
    colors = random.integers(0, 256, (len(counts) + 1, 3))
    parts = {
        "train": list(_labels(counts)),
        "test": list(_labels([evaluated_per_class] * len(counts))),
    }
    if layout != "inaturalist":
        parts["val"] = parts["test"]
        if open_images:
            parts["open"] = [-1] * open_images
    jobs, lists = [], {}
    for part, labels in parts.items():
        paths = [_path(layout, part, label, number) for number, label in enumerate(labels)]
        # Published lists are not sorted by class.
        order = random.permutation(len(labels)).tolist()
        text = "".join(f"{paths[i]} {labels[i]}{newline}" for i in order)
        shown = "val" if layout == "inaturalist" and part == "test" else part
        lists[part] = root / f"{_LIST_NAMES[layout]}_{shown}.txt"
        root.mkdir(parents=True, exist_ok=True)
        lists[part].write_bytes(text.encode())
        for path, label in zip(paths, labels, strict=True):
            height, width = (int(random.integers(low, high + 1)) for low, high in sizes)
            corner = random.integers(0, [_TEXTURE - width + 1, _TEXTURE - height + 1])
            jobs.append((root / path, tuple(colors[label]), corner.tolist(), (width, height)))

    def write(job) -> None:
        path, color, (left, top), (width, height) = job
        noise = texture.crop((left, top, left + width, top + height))
        image = Image.blend(noise, Image.new("RGB", noise.size, tuple(map(int, color))), 0.5)
        image.save(path, "JPEG", quality=quality)

    for directory in {job[0].parent for job in jobs}:
        directory.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as threads:
        list(threads.map(write, jobs))
    return JpegTree(root, lists["train"], lists.get("val"), lists["test"], lists.get("open"))


def _labels(counts: Sequence[int]) -> Iterator[int]:
    return itertools.chain.from_iterable([label] * count for label, count in enumerate(counts))


def _path(layout: str, part: str, label: int, number: int) -> str:
    if part == "open":
        return f"{_LIST_NAMES[layout]}_open/{number:08}.JPEG"
    if layout == "imagenet":
        wnid = f"n{10_000_000 + 37 * label}"
        if part == "test":
            return f"val/{wnid}/ILSVRC2012_val_{number:08}.JPEG"
        return f"train/{wnid}/{wnid}_{number + 100_000 * (part == 'val')}.JPEG"
    if layout == "places":
        if part != "train":
            return f"val_256/Places365_val_{number + 100_000 * (part == 'test'):08}.jpg"
        letter = chr(ord("a") + label % 26)
        # Some classes of Places are directories of directories.
        inside = "/outdoor" if label % 7 == 3 else ""
        return f"data_256/{letter}/{letter}_place_{label}{inside}/{number:08}.jpg"
    name = hashlib.md5(f"{part} {number}".encode()).hexdigest()
    return f"train_val2018/{_SUPER_CLASSES[label % 6]}/{label}/{name}.jpg"


def _texture(random: np.random.Generator) -> Image.Image:
    """Makes a picture with detail at all scales, which falls with the frequency."""
    total = np.zeros((_TEXTURE, _TEXTURE, 3), np.float32)
    for side in (8, 32, 128, 512, 1024):
        grid = random.integers(0, 256, (side, side, 3), np.uint8)
        layer = Image.fromarray(grid).resize((_TEXTURE, _TEXTURE), Image.Resampling.BICUBIC)
        total += (np.asarray(layer, np.float32) - 128) * (8 / side) ** 0.3
    return Image.fromarray(np.clip(total + 128, 0, 255).astype(np.uint8))
