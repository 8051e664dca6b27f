"""The records in a run's `metrics.jsonl`, one a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import JsonError, parse_json, read_text


def records(file: Path, *, until_damaged: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each record of `metrics.jsonl` with what an error names.

    A line that is no record raises UsageError; one that is no JSON, as a kill leaves it, ends the
    records if they are wanted `until_damaged`.
    """
    for number, line in enumerate(read_text(file).splitlines(), 1):
        where = f"{file} line {number}"
        try:
            record = parse_json(line)
        except JsonError as error:
            if until_damaged:
                return
            raise UsageError(f"{where} must be JSON, got damage: {error}") from error
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            raise UsageError(f"{where} must be an object with a step, got {line:.80}")
        yield where, record
