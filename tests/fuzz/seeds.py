"""Small whole files of each format, made and not stored, and inputs that once did harm."""

import gzip
import io
import json
import struct
import tarfile
import zipfile

import numpy as np
from safetensors.numpy import save

from jaxlt import recipes

LABELS = np.array([0, 1, 2, 0, 1, 2], np.int32)
IMAGES = ("a/0.png", "a/1.png", "b/0.png", "b/1.png")


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def zip_of(**entries):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, entry in entries.items():
            archive.writestr(f"archive/{name}", entry)
    return content.getvalue()


def as_json(values):
    return json.dumps(values).encode()


def tar_of(**files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, inside in files.items():
            member = tarfile.TarInfo(f"cifar/{name.replace('_bin', '.bin')}")
            member.size = len(inside)
            archive.addfile(member, io.BytesIO(inside))
    return content.getvalue()


# CIFAR-100 of one image for training and one for tests.
CIFAR = tar_of(train_bin=bytes(3074), test_bin=bytes(3074))
# What Python 2 pickled of a batch, with an array of two bytes.
CIFAR_PICKLE = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
    b"U\x01b\x87R(K\x01K\x01K\x02\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff"
    b"\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02abtbU\x06labels](K\x00K\x01eu."
)

SAFETENSORS = save(
    {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.zeros(2, np.float16)}
)


def safetensors_header(**entries):
    header = as_json(entries)
    return struct.pack("<Q", len(header)) + header


# A dict of one tensor of 2x3 numbers, as torch.save pickles it.
PICKLE = (
    b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00"
    b"\x00storageq\x03ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K"
    b"\x06tq\x07QK\x00K\x02K\x03\x86q\x08K\x03K\x01\x86q\t\x89ccollections\nOrderedDict\nq\n)Rq\x0b"
    b"tq\x0cRq\rs."
)
NUMBERS = np.arange(6, dtype=np.float32).tobytes()


def torch_zip(program):
    return zip_of(**{"data.pkl": program, "data/0": NUMBERS, "byteorder": b"little"})


MODEL = {
    "model": "mlp",
    "num_classes": 3,
    "classifier": "linear",
    "precision": "float32",
    "image_shape": [4, 4, 1],
    "mean": [0.5],
    "std": [0.25],
    "class_names": ["a", "b", "c"],
    "resize": "stretch",
    "class_numbers": [2, 0, 1],
    "cosine_scale": 1.0,
    "adaptation": None,
    "pretrained": None,
}
ADAPTED = {**MODEL, "model": "random:tiny", "image_shape": [8, 8, 3], "mean": [0.5] * 3}
ADAPTED |= {"std": [0.25] * 3, "adaptation": {"kinds": ["lora"], "rank": 2}}
CLIP_CONFIG = {
    "model_type": "clip",
    "projection_dim": 8,
    "vision_config": {"hidden_size": 8, "num_attention_heads": 2, "image_size": 8, "patch_size": 4},
    "text_config": {"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 16},
}
DINO_CONFIG = {"model_type": "dinov2", "hidden_size": 8, "num_attention_heads": 2, "mlp_ratio": 2}
METRICS = b'{"step": 1, "accuracy": 0.5}\n{"step": 2, "measurement": {"loss": {"few": null}}}\n'
NAMES = {"categories": [{"id": 0, "name": "fox"}, {"id": "n01", "name": "red fox"}]}
LIST = b"a/0.png 0\na/1.png 0\nb/0.png 1\nb/1.png 1\n"
ZIPPED = gzip.compress(idx(np.zeros((4, 40, 40), np.uint8)), mtime=0)
RECIPE = recipes.Recipe(
    data=recipes.Data(source=recipes.Digits()),
    network=recipes.Small(architecture="mlp"),
    stages=(recipes.Stage(method=recipes.ImbSAM()), recipes.TauNorm()),
).identity()
_GROUPS = ("many", "medium", "few")
_EVALUATION = {
    "step": 2,
    **dict.fromkeys(("accuracy", "balanced_accuracy", *_GROUPS), 0.5),
    "per_class": [0.5, 0.5, None],
    "group_confusion": {group: dict.fromkeys(("correct", *_GROUPS), 0.25) for group in _GROUPS},
    "confidence_bins": {"counts": [0, 2], "confidence_sums": [0.0, 1.5], "correct": [0, 1]},
}
RUN = {
    "recipe.json": as_json({**RECIPE, "seed": 1}),
    "split.json": as_json({"class_counts": [3, 2, 1]}),
    "model.json": as_json(MODEL),
    "result.json": as_json({**_EVALUATION, "seconds": 1.0, "code": ["a"]}),
    "metrics.jsonl": as_json(_EVALUATION) + b"\n",
}
