"""Finished runs written by hand, for the tests of the report: it reads their records alone."""

import json

import numpy as np

from jaxlt import recipes

COUNTS = (200, 60, 30, 8, 4)
GROUPS = ("many", "medium", "few")
MODEL = {
    "model": "mlp",
    "classifier": "linear",
    "precision": "float32",
    "image_shape": [8, 8, 1],
    "mean": [0.5],
    "std": [0.25],
}


def evaluation(step, accuracy):
    """What an evaluation records of a network that is right this often."""
    wrong = (1 - accuracy) / 2
    shares = {"correct": accuracy, "many": wrong, "medium": wrong, "few": 0.0}
    return {
        "step": step,
        "train_loss": 2.0 / step,
        "test_loss": 1.0 - accuracy,
        "accuracy": accuracy,
        "balanced_accuracy": accuracy - 0.05,
        "many": accuracy,
        "medium": accuracy - 0.1,
        "few": accuracy - 0.3,
        "group_confusion": dict.fromkeys(GROUPS, shares),
        "ece": 0.125,
        "confidence_bins": {
            "counts": [0, 40, 60],
            "confidence_sums": [0.0, 20.0, 54.0],
            "correct": [0, 18, 42],
        },
        "per_class": np.linspace(accuracy, accuracy - 0.3, len(COUNTS)).tolist(),
    }


def measurement(step, radii):
    """What a measurement records; a batch without few-shot images knows nothing of them."""
    few = None if step % 20 else 0.4
    return {
        "step": step,
        "measurement": {
            "loss": {"many": 1.0, "medium": 1.5, "few": few},
            "gradient_norm": {"many": 1.0, "medium": 1.5, "few": few},
            "sharpness": {"many": 0.1 + 1 / step, "medium": 0.2, "few": few},
            "cosine": {"many_medium": 0.5, "many_few": few and -few, "medium_few": few},
            "batches_without": {"many": 0.0, "medium": 0.1, "few": 0.7, "tail": 0.5},
            "perturbation_norm": [0.0 if r is None else r + 1 / step for r in radii],
        },
    }


def write_run(path, *, seed=0, accuracy=0.7, radii=None, drop=(), names=None, method=None, **stage):
    """Writes the directory of a finished run.

    Args:
        path: the directory, created.
        seed: of the run.
        accuracy: of the last evaluation.
        radii: of the method's groups in measurements, None for a group that is in no batch; none
            for no measurements.
        drop: what evaluations do not record, as those of earlier versions.
        names: of the classes.
        method: of the first stage, or the name of one of the user's own; None for SGD.
        **stage: other fields of the first stage.
    """
    path.mkdir(parents=True)
    known = method if isinstance(method, recipes.Method) else recipes.SGD()
    identity = recipes.Recipe(
        data=recipes.Data(source=recipes.Digits()),
        network=recipes.Small(architecture="mlp"),
        stages=(recipes.Stage(method=known, **stage),),
    ).identity()
    if isinstance(method, str):
        identity["recipe"]["stages"][0]["method"] = {"name": method, "strength": 3}
    evaluations = [evaluation(step, accuracy * step / 40) for step in (10, 20, 40)]
    evaluations = [
        {name: value for name, value in one.items() if name not in drop} for one in evaluations
    ]
    steps = range(5, 41, 5) if radii else ()
    lines = [*evaluations, *(measurement(step, radii) for step in steps)]
    lines.sort(key=lambda line: line["step"])
    names = names or [f"class {number}" for number in range(len(COUNTS))]
    write_json(path / "recipe.json", {**identity, "seed": seed, "images": f"images{seed}"})
    write_json(path / "split.json", {"class_counts": COUNTS})
    write_json(path / "model.json", {**MODEL, "num_classes": len(names), "class_names": names})
    write_json(path / "result.json", {**evaluations[-1], "seconds": 2.0, "code": ["abc123"]})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_json(path, values):
    path.write_text(json.dumps(values))


def change_recipe(path, *parts, **values):
    """Replaces values of a part of a run's recipe, which the names and numbers lead to."""
    identity = json.loads((path / "recipe.json").read_text())
    part = identity["recipe"]
    for name in parts:
        part = part[name]
    part.update(values)
    write_json(path / "recipe.json", identity)


def change_json(path, **values):
    """Replaces values of a JSON object in a file."""
    write_json(path, {**json.loads(path.read_text()), **values})
