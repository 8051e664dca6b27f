"""Measures what the input pipeline makes a second, beside bare decoding of the same files."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from experiments import command_line
from experiments.benchmark.timing import alternate, count_cores
from experiments.presentation import markdown_table
from jaxlt import UsageError
from jaxlt.data import DrawStream, InstanceBalancedSampler, TfDataPipeline
from jaxlt.data.sources.encoded_images import EncodedImages
from jaxlt.data.sources.source import is_of_files
from jaxlt.devices.backends import import_tensorflow
from jaxlt.recipes.data import Augmentation, Data
from jaxlt.recipes.part import Count, part_word
from jaxlt.recipes.sources import AnySource

_WARM_UP = 4


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Flags of the program."""

    source: AnySource
    """Data set of image files: list:ROOT,TRAIN, tfds:NAME,TRAIN, folder:DIR or hf:NAME."""
    image_size: int = 224
    """Side in pixels of what the network would see."""
    batch_size: Count = 64
    """Images a step."""
    steps: Count = 40
    """Steps that are timed, in each round."""
    rounds: Count = 3
    """Rounds, in which the ways take turns; the table has the median of each."""
    color_jitter: float = 0.4
    """Strength of the color jitter."""


def main() -> None:
    """Prints images a second and processor time of each way to read the training images."""
    arguments = command_line.parse(Arguments, "experiments.input_throughput", __doc__ or "")
    if not is_of_files(name := part_word(arguments.source)):
        raise UsageError(f"source must be of image files, got {name}")
    data = Data(source=arguments.source, image_size=arguments.image_size, normalization="imagenet")
    images = data.load().train
    assert isinstance(images, EncodedImages)
    crops = Augmentation(shift="resized_crop_flip")
    jittered = crops.replace(color_jitter=arguments.color_jitter)
    ways = {
        "bare decode_jpeg and resize": lambda: _bare(images, arguments, antialias=False),
        "bare, with antialiasing": lambda: _bare(images, arguments, antialias=True),
        "resized_crop_flip": lambda: _batches(images, arguments, crops),
        "and color_jitter": lambda: _batches(images, arguments, jittered),
    }
    (times,) = alternate([ways], arguments.rounds, _time)
    count = arguments.steps * arguments.batch_size
    rates, rows = {}, []
    for name, (wall, processor) in ((name, np.median(times[name], axis=0)) for name in ways):
        rates[name] = count / wall
        of_bare = rates[name] / rates["bare decode_jpeg and resize"]
        cost = 1000 * processor / count
        rows.append([name, f"{rates[name]:.0f}", f"{of_bare:.2f}", f"{cost:.2f}"])
    print(markdown_table(["", "images/s", "of bare", "ms of processor an image"], rows))
    of_core = rates["resized_crop_flip"] / count_cores()
    command_line.say_next(f"python3 -m experiments.scaling --core-images {of_core:.0f}")


def _time(batches: Callable[[], Iterable[Any]]) -> tuple[float, float]:
    """Returns seconds and processor seconds of all batches after the first few."""
    stream = iter(batches())
    for _ in range(_WARM_UP):
        next(stream)
    start = time.perf_counter(), time.process_time()
    for _ in stream:
        pass
    return time.perf_counter() - start[0], time.process_time() - start[1]


def _batches(
    images: EncodedImages, arguments: Arguments, augmentation: Augmentation
) -> Iterator[Any]:
    count = len(images.labels)
    sampler = InstanceBalancedSampler(count, 0)
    stream = DrawStream(np.arange(count), sampler, arguments.batch_size, 0, augmentation.build())
    pipeline = TfDataPipeline(images, stream, mean=(0.5,) * 3, std=(0.25,) * 3)
    return pipeline.chunks(0, arguments.steps + _WARM_UP, 1)


def _bare(images: EncodedImages, arguments: Arguments, *, antialias: bool) -> Iterable[Any]:
    tf = import_tensorflow()
    size, threads = (arguments.image_size,) * 2, os.cpu_count() or 1
    order = InstanceBalancedSampler(len(images.labels), 0)
    count = (arguments.steps + _WARM_UP) * arguments.batch_size

    def read(number: Any) -> Any:
        decoded = tf.io.decode_jpeg(images.contents(number), channels=3)
        return tf.image.resize(decoded, size, antialias=antialias)

    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    numbers = tf.data.Dataset.from_tensor_slices(order(np.arange(count)))
    resized = numbers.map(read, num_parallel_calls=threads).batch(arguments.batch_size)
    return resized.with_options(options)


if __name__ == "__main__":
    command_line.run(main)
