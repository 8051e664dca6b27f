"""The readers that are fed hostile files, by name, each with whole files and ones that did harm."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlt.data.sampling.long_tail import labels_digest
from jaxlt.errors import UsageError
from jaxlt.models.clip.config import read_config
from jaxlt.models.clip.dinov2 import read_dinov2_config
from jaxlt.recipes.named import RECIPES
from jaxlt.recipes.recorded import write_recipe

from . import formats, readers, seeds
from .guard import watched

# What is shown of 2000 characters, each escaped.
_LONGEST = 20_000


def _replaced(content, old, new):
    assert old in content
    return content.replace(old, new)


class Target(NamedTuple):
    """A reader.

    Attributes:
        read: of a directory of its own, in which it may write, and the bytes of a file.
        files: whole files, and those that once did harm, or a function that makes them.
        megabytes: that reading may allocate beside 64 times the file's size.
    """

    read: Callable[[Path, bytes], object]
    files: Sequence[bytes] | Callable[[], Sequence[bytes]]
    megabytes: int = 2

    @property
    def seeds(self) -> Sequence[bytes]:
        return self.files() if callable(self.files) else self.files


def run(target, directory, content):
    """Feeds a target; anything but a result or a `UsageError` of one line comes out.

    Returns:
        Whether the file was accepted.
    """
    message = None
    with watched(directory):
        try:
            target.read(directory, content)
        except UsageError as error:
            message = str(error)
    assert message is None or (message.isprintable() and len(message) < _LONGEST), message
    return message is None


_SPLIT = {
    "format": "jaxlt split 1",
    "source": "digits",
    "num_images": 6,
    "labels_sha256": labels_digest(seeds.LABELS),
    "profile": "exponential",
    "imbalance_factor": 2.0,
    "rule": "shuffled",
    "seed": 0,
    "class_counts": [2, 1, 1],
    "indices": [0, 3, 1, 2],
}
_RECIPE, _ENCODER = (
    seeds.as_json(json.loads(write_recipe(RECIPES[name])))
    for name in ("mislas_digits", "focal_sam_tiny_fashion")
)
_DEEP = b"[" * 100_000
_INTEGER = b"9" * 5000

TARGETS = {
    "idx_images": Target(
        readers.idx(3),
        [
            seeds.idx(np.arange(48, dtype=np.uint8).reshape(3, 4, 4)),
            seeds.ZIPPED,
            # NumPy has no array of such sides, though it would be empty.
            b"\0\0\x08\x03" + b"\0" * 4 + b"\xff" * 8,
            # What is there, were it unpacked, is a million times the file.
            seeds.ZIPPED[:8] + b"\0" * 100,
        ],
        megabytes=4,
    ),
    "idx_labels": Target(readers.idx(1), [seeds.idx(np.arange(9, dtype=np.uint8))]),
    "cifar_archive": Target(
        readers.cifar_archive,
        [
            seeds.CIFAR,
            gzip.compress(seeds.CIFAR),
            # A member of a size that nothing has.
            seeds.CIFAR.replace(b"00000006002", b"77777777777", 1),
            gzip.compress(seeds.CIFAR)[:-8],
            seeds.tar_of(**{"train": seeds.CIFAR_PICKLE, "test": seeds.CIFAR_PICKLE}),
        ],
        megabytes=8,
    ),
    "cifar_pickle": Target(
        readers.cifar_pickle,
        [
            seeds.CIFAR_PICKLE,
            _replaced(seeds.CIFAR_PICKLE, b"K\x01K\x02\x86", b"J\xff\xff\xff\xffK\x02\x86"),
            _replaced(seeds.CIFAR_PICKLE, b"U\x02u1", b"U\x02O8"),
            _replaced(
                seeds.CIFAR_PICKLE, b"numpy.core.multiarray\n_recon", b"os\nsystem\nU\x02idcos\n"
            ),
            b"\x80\x02c_codecs\nencode\nK\x00\x85R.",
        ],
    ),
    "list_file": Target(
        readers.list_file,
        [
            seeds.LIST,
            b"\xef\xbb\xbf" + seeds.LIST.replace(b"\n", b"\r\n"),
            b"../outside.png 0\n",
            b"/etc/passwd 0\n",
            b"a/../../list.txt 0\n",
            b"a/\0.png 0\n",
            # NumPy would make room for the longest label in each of the lines.
            b"".join(b"%d.png 0\n" % n for n in range(500)) + b"a.png " + b"0" * 50_000 + b"\n",
        ],
    ),
    "split": Target(
        readers.split,
        [
            seeds.as_json(_SPLIT),
            seeds.as_json({**_SPLIT, "indices": [""] * 500 + ["a" * 50_000]}),
            seeds.as_json({**_SPLIT, "indices": [2**70]}),
            seeds.as_json({**_SPLIT, "indices": [True, False]}),
            seeds.as_json({**_SPLIT, "seed": [_INTEGER.decode()]}),
            _DEEP,
            _INTEGER,
        ],
    ),
    "class_names_json": Target(
        readers.names(".json"),
        [
            seeds.as_json(seeds.NAMES),
            seeds.as_json({"0": "fox", "1": "red fox"}),
            _DEEP,
            b'{"0": "\\ud800"}',
            b'[{"id": [[]], "name": "fox"}]',
        ],
    ),
    "class_names_text": Target(
        readers.names(".txt"), [b"0 fox\n1\tred fox\n", b"\xff", b"0 a\n" * 2000]
    ),
    "metrics": Target(
        readers.metrics,
        [seeds.METRICS, b"1\n", b'{"measurement": 1}\n', b"\xff\n", _DEEP, _INTEGER],
    ),
    "recipe": Target(
        readers.recipe,
        [
            _RECIPE,
            _ENCODER,
            _replaced(_RECIPE, b'"epochs": 60', b'"epochs": "many"'),
            _replaced(_RECIPE, b'"epochs": 60', b'"epochs": ' + b"9" * 400),
            _replaced(_RECIPE, b'"epochs": 60', b'"epochs": ' + _INTEGER),
            _replaced(_RECIPE, b'"momentum": 0.9', b'"momentum": null'),
            _replaced(_RECIPE, b'"momentum": 0.9', b'"momentum": NaN'),
            _replaced(_RECIPE, b'"momentum": 0.9', b'"momentum": 1e999'),
            _replaced(_RECIPE, b'"momentum": 0.9', b'"momentum": ' + b"[" * 60 + b"]" * 60),
            _replaced(_RECIPE, b'"momentum": 0.9', b'"momentum": [[1]]'),
            _replaced(_RECIPE, b'"format": 2', b'"format": [[2]]'),
            _replaced(_RECIPE, b'"format": 2', b'"format": ' + b"9" * 4000),
            _replaced(_RECIPE, b'"name": "train"', b'"name": "\\ud800\\n"'),
            _replaced(_RECIPE, b'"name": "train"', b'"name": {}'),
            _replaced(_RECIPE, b'"name": "train"', b'"a\\nb": "train"'),
            seeds.as_json({"format": 2, "recipe": {"stages": [{"name": "tau_norm"}]}}),
            seeds.as_json({"format": 2, "recipe": {"stages": [{"name": "train"}] * 100}}),
            seeds.as_json({"format": 2, "recipe": None}),
            seeds.as_json({"format": 2}),
            _replaced(_ENCODER, b'"adaptformer"', b'"full", "lora"'),
            _replaced(_ENCODER, b'"rank": null', b'"rank": 99999999999'),
            _DEEP,
            _INTEGER,
        ],
    ),
    "run": Target(
        readers.finished_run,
        [
            bytes([i]) + content
            for i, name in enumerate(seeds.RUN)
            for content in (seeds.RUN[name], b"{}", b"[]")
        ],
    ),
    "model": Target(
        readers.model,
        [
            seeds.as_json(seeds.MODEL),
            seeds.as_json(seeds.ADAPTED),
            seeds.as_json({**seeds.MODEL, "model": ["mlp"]}),
            seeds.as_json({**seeds.MODEL, "precision": "int8"}),
            seeds.as_json({**seeds.MODEL, "image_shape": [2**62, 2**62, 1]}),
            seeds.as_json({**seeds.MODEL, "adaptation": {"kinds": [["lora"]]}}),
            seeds.as_json({**seeds.MODEL, "class_numbers": [7, 7, 7]}),
            b'{"model": ' + b"[" * 900 + b"]" * 900 + b"}",
        ],
        megabytes=8,
    ),
    "clip_config": Target(
        readers.config(read_config),
        [
            seeds.as_json(seeds.CLIP_CONFIG),
            seeds.as_json({**seeds.CLIP_CONFIG, "vision_config": {"num_hidden_layers": 10**9}}),
            seeds.as_json({**seeds.CLIP_CONFIG, "model_type": [[]]}),
        ],
    ),
    "dinov2_config": Target(readers.config(read_dinov2_config), [seeds.as_json(seeds.DINO_CONFIG)]),
    "safetensors": Target(
        readers.tensors(bytes),
        [
            seeds.SAFETENSORS,
            # Lengths that lie, tensors that overlap, and sizes whose product wraps around.
            b"\xff" * 7 + b"\x7f" + seeds.SAFETENSORS[8:],
            seeds.safetensors_header(
                a={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                b={"dtype": "F32", "shape": [1], "data_offsets": [2, 6]},
            )
            + bytes(6),
            seeds.safetensors_header(
                a={"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}
            ),
            seeds.safetensors_header(
                a={"dtype": "F32", "shape": [0, 2**62, 4], "data_offsets": [0, 0]}
            ),
            seeds.safetensors_header(a={"dtype": "F32", "shape": [0] * 99, "data_offsets": [0, 0]}),
            seeds.safetensors_header(
                **{"a\nb": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}
            )
            + b"a",
        ],
    ),
    "torch_zip": Target(readers.tensors(bytes), [seeds.torch_zip(seeds.PICKLE)]),
    "torch_pickle": Target(
        readers.tensors(seeds.torch_zip),
        [
            seeds.PICKLE,
            b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00idq\x00\x85R.",
            # Room for four thousand million remembered values, and for as many bytes.
            b"\x80\x02}r\xff\xff\xff\x7f.",
            b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
            # The hash of so deep a tuple ends the interpreter; the text of this one has no end.
            b"\x80\x02})" + b"\x85" * 200_000 + b"K\x00s.",
            b"\x80\x02)" + b"q\x00h\x00\x86" * 100 + b"Q.",
        ],
    ),
    "tokenizer": Target(readers.tokenizer, formats.tokenizers()),
    "onnx_wheel": Target(readers.wheel, formats.networks(), megabytes=8),
    "checkpoint": Target(readers.checkpoint, readers.of_checkpoint, megabytes=32),
    "predictor": Target(readers.predictor, readers.of_checkpoint, megabytes=32),
}
