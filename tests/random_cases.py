"""Problems and options of the methods, drawn at random, for `numpy_reference.py` and for jaxlt.

A configuration is what a program is compiled for: method, options, path, shapes. A case holds the
arrays and numbers of one call. The same numbers draw the same ones.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

NUM_INPUTS, NUM_FEATURES = 3, 4
MASKS = {
    "all": ("weights", "shift", "kernel", "bias"),
    "classifier": ("kernel", "bias"),
    "kernel": ("kernel",),
    "bias": ("bias",),
    "first layer": ("weights", "shift"),
    "one leaf of each": ("weights", "bias"),
}
# Methods and paths by turns, each as often as it has variants; None for any path.
_TURNS = (
    ("cc_sam", "factored"),
    ("imb_sam", "parts"),
    ("cc_sam", "plain"),
    ("sam", None),
    ("cc_sam", "factored"),
    ("sse_sam", "parts"),
    ("cc_sam", "parts"),
    ("focal_sam", None),
    ("cc_sam", "factored"),
    ("imb_sam", None),
    ("cc_sam", "plain"),
    ("sse_sam", None),
    ("cc_sam", "factored"),
    ("gradient_norm_penalty", None),
    ("cc_sam", "parts"),
    ("sharpness_aware", "parts"),
    ("sharpness_aware", None),
)


class Configuration(NamedTuple):
    """What a program is compiled for.

    Attributes:
        path: "plain", a function to class losses; "known", with its pass at w; "factored", features
            and classifier apart; "parts", passes over each group's own images.
        scope: names of the perturbed parameters.
        leaves: names of all parameters.
        soft: whether labels are shares (B, C) of classes.
        scale: of a cosine classifier, or None for a linear one.
        passes: of "parts": sizes of blocks, or the number of images there is room for.
        part: images that directions are taken from, or None for the whole batch.
        vmapped: whether all cases are computed at once.
    """

    method: str
    path: str
    scope: tuple[str, ...]
    leaves: tuple[str, ...]
    adaptive: bool
    batch: int
    classes: int
    soft: bool
    scale: float | None
    passes: tuple[int, ...] | int | None
    part: int | None
    vmapped: bool
    options: dict[str, Any]


class Case(NamedTuple):
    """Arrays and numbers of one call."""

    params: dict[str, Any]
    images: Any
    labels: Any  # classes (B,) or shares (B, C)
    factors: Any  # of each class's loss
    train_counts: Any
    numbers: dict[str, Any]  # radii, weights and thresholds of the method
    count: Any  # steps taken before


def draw_configuration(number: int) -> Configuration:
    rng = np.random.default_rng([number])

    def one_of(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    method, path = _TURNS[number % len(_TURNS)]
    path = path or one_of("plain", "factored", "parts", "known")
    batch, classes = one_of(1, 3, 6, 6, 9, 9), one_of(1, 2, 2, 3, 3, 3, 4, 4, 4)
    options = {}
    if method == "imb_sam":
        options = {"group_mean": one_of(False, True)}
    elif method == "sse_sam":
        # Both stages and a conditional, or one stage alone.
        options = {"switch_step": one_of(None, 0, 3)}
    elif method == "cc_sam":
        options = {
            "grad_norm": one_of("global", "per_leaf"),
            "class_weighting": one_of("sample", "class"),
            "magnitude": one_of("characteristic", "characteristic", "constant"),
            "chunk_size": one_of(None, 2, 3),
            "bounded": one_of(False, True),
            "all_flat": one_of(False, False, True),
        }
    elif method == "sharpness_aware":
        num_groups = one_of(1, 2, 3)
        options = {
            "num_groups": num_groups,
            # What the program knows of them saves passes.
            "groups": one_of(_groups(num_groups, classes, rng), None),
            "clean": one_of(False, False, True),
            "bounded": one_of(False, True),
            "first_rests": one_of(False, False, True),
        }
    # Room for so many images of a group, which some of the drawn batches exceed.
    passes = one_of((4, 2), (3, 1), (batch + 1) // 2) if path == "parts" else None
    scale = one_of(None, None, 3.0)
    leaves = [name for name in MASKS["all"] if scale is None or name != "bias"]
    masks = ("all", "classifier", "classifier", "kernel", "first layer", "one leaf of each", "bias")
    mask = one_of(*(masks if scale is None else masks[:-1]))
    return Configuration(
        method=method,
        path=path,
        scope=tuple(name for name in MASKS[mask] if name in leaves),
        leaves=tuple(leaves),
        adaptive=one_of(False, False, False, True),
        batch=batch,
        classes=classes,
        soft=path in ("plain", "known") and one_of(False, True),
        scale=scale,
        passes=passes,
        part=None if method == "cc_sam" else one_of(None, None, None, (batch + 1) // 2),
        vmapped=one_of(False, False, False, True),
        options=options,
    )


def varied(number: int, among: Iterable[int]) -> list[int]:
    """Chooses configurations that together have as many options, on as many paths, as they can."""
    left, seen, chosen = {n: _traits(draw_configuration(n)) for n in among}, set(), []
    for _ in range(number):
        best = max(left, key=lambda n: len(left[n] - seen))
        seen |= left.pop(best)
        chosen.append(best)
    return chosen


def _traits(configuration: Configuration) -> set[Any]:
    method, path = configuration.method, configuration.path
    if 1 in (configuration.batch, configuration.classes):
        # Most options have no effect there.
        one_image, one_class = configuration.batch == 1, configuration.classes == 1
        return {("one image", one_image), ("one class", one_class), ("one", method)}
    passes, options = configuration.passes, dict(configuration.options)
    if method == "sharpness_aware":
        options["groups"] = options["groups"] is None
    options |= {"room": isinstance(passes, int) or passes}
    classifier_alone = method == "cc_sam" and {"kernel", "bias"}.issuperset(configuration.scope)
    return {
        (method, classifier_alone, "linear", configuration.scale is None),
        (method, "soft", configuration.soft),
        (method, "part", configuration.part is None),
        (method, "adaptive", configuration.adaptive),
        (path, "vmapped", configuration.vmapped),
        ("scope", configuration.scope),
        *((method, path, classifier_alone, *option) for option in options.items()),
    }


def draw_case(configuration: Configuration, rng: np.random.Generator) -> Case:
    batch, classes = configuration.batch, configuration.classes
    shapes = {
        "weights": (NUM_INPUTS, NUM_FEATURES),
        "shift": (NUM_FEATURES,),
        "kernel": (NUM_FEATURES, classes),
        "bias": (classes,),
    }
    params = {name: rng.standard_normal(shapes[name]) for name in configuration.leaves}
    for name in params:
        if rng.random() < 0.05:
            params[name] = np.zeros(shapes[name])
    images = rng.standard_normal((batch, NUM_INPUTS))
    if configuration.soft:
        labels = _shares(batch, classes, rng)
    else:
        labels = _labels(batch, classes, rng)
        # Padding must not count, whatever it holds.
        images[(labels < 0) | (labels >= classes)] *= 30
    if rng.random() < 0.1:
        images[0] = 0
    unit = rng.choice([1, 1, 1, 1e6, 1e-30])
    train_counts = np.floor(np.exp(rng.uniform(0, 7, classes)))
    return Case(
        params=params,
        images=images,
        labels=labels,
        factors=unit * rng.uniform(0.5, 2, classes),
        train_counts=train_counts,
        numbers=_numbers(configuration, train_counts, unit, rng),
        count=np.int32(rng.integers(0, 6)),
    )


def _numbers(
    configuration: Configuration, train_counts: ndarray, unit: float, rng: np.random.Generator
) -> dict[str, Any]:
    method, rho = configuration.method, _radius(rng)
    if method in ("imb_sam", "sse_sam"):
        # A class with as many images as the threshold is not tail.
        threshold = rng.choice(train_counts) + rng.choice([0.0, 0.5])
        of_head = {"head_rho": _radius(rng)} if method == "sse_sam" else {}
        return {"rho": rho, "tail_threshold": threshold, **of_head}
    if method == "sharpness_aware":
        num_groups, classes = configuration.options["num_groups"], len(train_counts)
        return {
            "rho": np.array([_radius(rng) for _ in range(num_groups)]),
            "groups": np.array(_groups(num_groups, classes, rng)),
            "clean": rng.uniform(0, 2, classes),
            "max_relative_radius": _radius(rng),
        }
    if method == "focal_sam":
        weight, gamma = rng.choice([0, 1, 2 * rng.random()]), rng.choice([0, 1, 4 * rng.random()])
        return {"rho": rho, "sharpness_weight": weight, "gamma": gamma}
    if method == "gradient_norm_penalty":
        return {"rho": rho + 1e-3, "penalty": _radius(rng)}
    if method == "cc_sam":
        # The characteristic radius shrinks as losses grow.
        constant = configuration.options["magnitude"] == "constant"
        return {
            "rho": rho * (1 if constant else np.sqrt(unit)),
            "flat_ratio": rng.choice([0, 1, rng.random(), rng.random()]),
            "max_relative_radius": _radius(rng),
        }
    return {"rho": rho}


def _radius(rng: np.random.Generator) -> float:
    return 0.0 if rng.random() < 0.07 else float(np.exp(rng.uniform(-6, 1)))


def _groups(num_groups: int, classes: int, rng: np.random.Generator) -> tuple[Any, ...]:
    """Draws weights of classes: each class in one group, in one or none, or in all."""
    if rng.random() < 0.3:
        weights = rng.uniform(0, 2, (num_groups, classes))
    else:
        more = int(rng.integers(0, 2))
        weights = np.eye(num_groups + more)[rng.integers(0, num_groups + more, classes)].T
        weights = weights[:num_groups] * (rng.uniform(0, 2, classes) if more else 1)
    return tuple(map(tuple, weights.tolist()))


def _labels(batch: int, classes: int, rng: np.random.Generator) -> ndarray:
    kinds = ["all", "one class", "two classes", "padded", "nothing"]
    kind = rng.choice(kinds, p=[0.33, 0.1, 0.2, 0.34, 0.03])
    labels = rng.integers(0, classes, batch)
    if kind == "one class":
        labels[:] = labels[0]
    elif kind == "two classes":
        labels = rng.choice(rng.integers(0, classes, 2), batch)
    elif kind == "padded":
        labels = np.where(rng.random(batch) < 0.3, rng.choice([-1, -7, classes], batch), labels)
    elif kind == "nothing":
        labels[:] = -1
    return labels.astype(np.int32)


def _shares(batch: int, classes: int, rng: np.random.Generator) -> ndarray:
    first, second = np.eye(classes)[rng.integers(0, classes, (2, batch))]
    part = rng.random((batch, 1))
    mixed = part * first + (1 - part) * second
    shares = mixed if rng.random() < 0.5 else rng.dirichlet(np.full(classes, 0.5), batch)
    if rng.random() < 0.3:
        shares[rng.random(batch) < 0.4] = 0
    return shares
