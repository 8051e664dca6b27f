"""Predictions for many image files: made in batches, kept on disk until all are there, written."""

import contextlib
import io
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from experiments.analyzed_run import ticking
from experiments.image_paths import shown
from experiments.presentation import csv_writer
from jaxlt.errors import UsageError, counted, first_few
from jaxlt.evaluation import Prediction, Predictor
from jaxlt.files.directory import expanded
from jaxlt.files.whole_file import whole_file

STANDARD_OUTPUT = "-"
"""In place of a file's name."""

_BATCH = 64
_DIGITS = 7

_logger = logging.getLogger(__name__)


class Predictions:
    """The likeliest classes of image files, which nothing is written of before all are known.

    Args:
        predictor: the network.
        top_k: number of classes for an image.
    """

    def __init__(self, predictor: Predictor, top_k: int):
        self._predictor, self._top_k, self._count = predictor, top_k, 0
        # Of a million images they would fill the memory.
        self._rows = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed below)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._rows.close()

    def add(self, paths: Sequence[Path], *, skip_unreadable: bool) -> None:
        """Classifies image files; UsageError names those that cannot be read, unless skipped."""
        unreadable: list[str] = []
        bar = ticking("predict", len(paths), "image") if len(paths) > _BATCH else _no_bar()
        with bar as tick:
            for start in range(0, len(paths), _BATCH):
                batch = paths[start : start + _BATCH]
                pixels, read, faults = self._read(batch)
                unreadable += faults
                if skip_unreadable:
                    for fault in faults:
                        _logger.warning("skipped: %s", fault)
                # After a fault that stops the program the others are looked for, nothing else.
                if read and (skip_unreadable or not unreadable):
                    self._keep(read, self._predictor.ranked(pixels, self._top_k))
                tick(len(batch))
        if skip_unreadable and unreadable:
            _logger.warning("skipped %d of %s", len(unreadable), counted(len(paths), "image"))
        if unreadable and (not skip_unreadable or not self._count):
            raise UsageError(_refusal(unreadable, len(paths)))

    def _read(self, paths: Sequence[Path]) -> tuple[np.ndarray, list[Path], list[str]]:
        """Reads image files, one by one where one cannot be read; returns also what is wrong."""
        with contextlib.suppress(UsageError):
            return self._predictor.read_files(paths), list(paths), []
        pixels, read, faults = [], [], []
        for path in paths:
            try:
                pixels.append(self._predictor.read_files([path])[0])
                read.append(path)
            except UsageError as error:
                faults.append(str(error))
        return np.array(pixels), read, faults

    def _keep(self, paths: Sequence[Path], found: Sequence[Sequence[Prediction]]) -> None:
        for path, predictions in zip(paths, found, strict=True):
            self._rows.write(json.dumps([str(path), predictions]) + "\n")
        self._count += len(paths)

    def __iter__(self) -> Iterator[tuple[str, list[Prediction]]]:
        """Yields each image's path with its predictions."""
        self._rows.seek(0)
        for line in self._rows:
            path, predictions = json.loads(line)
            yield path, [Prediction(*one) for one in predictions]

    def print(self) -> None:
        """Prints a line for each image, and below it one for each class."""
        for path, predictions in self:
            print(shown(path))
            for class_name, probability in predictions:
                print(f"{100 * probability:7.2f} %  {shown(class_name)}")

    def write_csv(self, file: str) -> None:
        """Writes `path`, then `class_1`, `probability_1` and so on, likeliest first."""
        columns = [(f"class_{n}", f"probability_{n}") for n in range(1, self._top_k + 1)]
        header = ["path", *(name for pair in columns for name in pair)]

        def row(path: str, predictions: Sequence[Prediction]) -> list[Any]:
            return [path, *(v for p in predictions for v in (p.class_name, _rounded(p)))]

        def write(text: io.TextIOBase) -> None:
            writer = csv_writer(text)
            writer.writerow(header)
            writer.writerows(row(*one) for one in self)

        self._write("csv", file, write)

    def write_jsonl(self, file: str) -> None:
        """Writes `{"path": ..., "predictions": [{"class": ..., "probability": ...}, ...]}`."""

        def write(text: io.TextIOBase) -> None:
            for path, predictions in self:
                found = [{"class": p.class_name, "probability": _rounded(p)} for p in predictions]
                text.write(json.dumps({"path": path, "predictions": found}) + "\n")

        self._write("jsonl", file, write)

    def _write(self, name: str, file: str, write: Callable[[io.TextIOBase], None]) -> None:
        if file == STANDARD_OUTPUT:
            self._write_to(sys.stdout.buffer, write)
            return
        with whole_file(expanded(file), name) as binary:
            self._write_to(binary, write)
        _logger.info("%s written to %s", counted(self._count, "image"), shown(file))

    @staticmethod
    def _write_to(binary: BinaryIO, write: Callable[[io.TextIOBase], None]) -> None:
        # A name of a file is bytes, which need not be UTF-8; they come out as they are.
        text = io.TextIOWrapper(binary, "utf-8", "surrogateescape", newline="")
        write(text)
        text.flush()
        text.detach()


def _rounded(prediction: Prediction) -> float:
    return float(f"{prediction.probability:.{_DIGITS}g}")


def _refusal(unreadable: Sequence[str], count: int) -> str:
    if len(unreadable) == 1:
        return f"{unreadable[0]}; --skip-unreadable leaves it out"
    return (
        f"images must be readable, got {len(unreadable)} of {count} that are not: "
        f"{first_few(unreadable, between='; ')}; --skip-unreadable leaves them out"
    )


@contextlib.contextmanager
def _no_bar() -> Iterator[Callable[[int], None]]:
    yield lambda _: None
