"""Names of classes in words, prompts with them, and their tokens for CLIP's text encoder."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import JsonError, parse_json, read_utf8
from jaxlt.models.clip.config import TextConfig

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
# Contractions, words, single digits and runs of anything else, as OpenAI cut texts.
_PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
# Numbers of categories, and of WordNet's sets of synonyms.
_NUMBER = re.compile(r"n?\d+")


def names_in_words(class_names: Sequence[str], file: str | Path | None = None) -> tuple[str, ...]:
    """Returns the name in words of each class that a data source names, by label.

    They are of a file, see `read_names`, or else the source's own, with blanks for slashes and
    underscores. A `UsageError` says which class has none.
    """
    if file is not None:
        names = read_names(file)
        for label, name in enumerate(class_names):
            if name not in names:
                raise UsageError(
                    f"class_names {file} must have a name for class {name!r} of label {label}"
                )
        return tuple(names[name] for name in class_names)
    if number := next((name for name in class_names if _NUMBER.fullmatch(name)), None):
        raise UsageError(
            "class_names must be a file that says what classes are in words where the data set "
            f"numbers them, got none for class {number!r}"
        )
    return tuple(re.sub("[/_]", " ", name) for name in class_names)


def read_names(path: str | Path) -> dict[str, str]:
    """Reads names in words by what a data source calls the classes.

    A text file has a class and its name on each line, separated by a tab or else by the first
    blank. A JSON file is an object from classes to names, a list of objects with `id` and `name`,
    or an object with such a list under `categories`, like iNaturalist's. A `UsageError` says that
    the file cannot be read, is of another form, or names a class twice.
    """
    path = Path(path)
    try:
        text = read_utf8(path)
        pairs = _of_json(text) if path.suffix == ".json" else _of_lines(text)
    except OSError as error:
        raise UsageError(f"class_names {path} must be a readable file: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"class_names {path} must have a class and its name on each line, or be JSON with "
            "names by class or a list of objects with id and name"
            + (f": {error}" if isinstance(error, JsonError) else "")
        ) from error
    names: dict[str, str] = {}
    for key, name in pairs:
        if key in names:
            raise UsageError(f"class_names {path} must name each class once, got {key!r} twice")
        names[key] = name
    return names


def _of_lines(text: str) -> list[tuple[str, str]]:
    lines = (line.strip() for line in text.splitlines() if line.strip())
    pairs = (line.split("\t" if "\t" in line else None, 1) for line in lines)
    return [(key.strip(), _name(name)) for key, name in pairs]


def _of_json(text: str) -> list[tuple[str, str]]:
    values = parse_json(text)
    if isinstance(values, dict):
        values = values.get("categories", values)
    if isinstance(values, dict):
        return [(key, _name(name)) for key, name in values.items()]
    if any(type(entry["id"]) not in (int, str) for entry in values):
        raise TypeError
    return [(str(entry["id"]), _name(entry["name"])) for entry in values]


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise TypeError
    name.encode()  # half of a surrogate pair is no character, and a ValueError here
    return name.strip()


def _imagenet_templates() -> tuple[str, ...]:
    photos = (
        "bad", "cropped", "bright", "dark", "close-up", "black and white", "good",
        "low resolution", "jpeg corrupted", "blurry", "pixelated",
    )  # fmt: skip
    works = (
        "rendering", "tattoo", "drawing", "painting", "sculpture", "doodle", "sketch", "rendition",
    )  # fmt: skip
    materials = ("plastic", "origami", "toy", "cartoon", "embroidered", "plushie")
    looks = ("hard to see", "clean", "dirty", "cool", "large", "nice", "weird", "small")
    return (
        *(f"a photo of {which} {{}}." for which in ("a", "the", "my", "many", "one")),
        *(f"a photo of {a} {look} {{}}." for look in looks for a in ("a", "the")),
        *(f"a {photo} photo of {a} {{}}." for photo in photos for a in ("a", "the")),
        *(f"a {work} of {a} {{}}." for work in works for a in ("a", "the")),
        *(f"{what} of {a} {{}}." for what in ("art", "graffiti", "itap") for a in ("a", "the")),
        "itap of my {}.",
        *(f"{a} {material} {{}}." for material in materials for a in ("a", "the")),
        *(f"{a} {{}} in a video game." for a in ("a", "the")),
    )


IMAGENET_TEMPLATES = _imagenet_templates()
"""The 80 templates whose mean OpenAI took for ImageNet (Radford et al., ICML 2021, section 3.1.4),
in another order than theirs."""


def class_prompts(names: Iterable[str], template: str = "a photo of a {}.") -> tuple[str, ...]:
    """Puts each class name into a template at its one "{}", with blanks for underscores."""
    if template.count("{}") != 1:
        raise UsageError(f"prompt must have one {{}} for the class name, got {template!r}")
    return tuple(template.replace("{}", name.replace("_", " ")) for name in names)


class PromptTokenizer:
    """Texts to token numbers by byte-pair encoding, as CLIP's text encoder was trained on them.

    Texts are put into lower case. The tokenizer comes from tokenizer.json, or from vocab.json and
    merges.txt.

    Args:
        directory: A snapshot's, see `jaxlt.models.clip.snapshot.load_clip`.
        config: Of the text encoder that is to see the tokens.

    Raises:
        UsageError: The directory has no tokenizer, it is damaged, or its numbers are not those of
            the text encoder. A call raises it, too, where the damage shows for its text.
    """

    def __init__(self, directory: str | Path, config: TextConfig):
        self._directory = Path(directory)
        self._tokenizer = tokenizer = _read_tokenizer(self._directory)
        # What is set in tokenizer.json would be in force for the empty text.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        begin, end = (tokenizer.token_to_id(token) for token in (_BEGIN, _END))
        (ids,) = self._encode([""])
        if None in (begin, end) or ids != [begin, end]:
            raise UsageError(
                f"tokenizer in {directory} must make {_BEGIN} ({begin}) and {_END} ({end}) of an "
                f"empty text, got {ids}"
            )
        largest = max(tokenizer.get_vocab().values())
        # See `TextEncoder` for 2: the end must then be the greatest token.
        expected = largest if config.eos_token_id == 2 else config.eos_token_id
        if end != expected or largest >= config.vocab_size:
            raise UsageError(
                f"tokenizer in {directory} must have {expected} for {_END} and tokens below "
                f"{config.vocab_size}, the text encoder's vocab_size, got {end} and {largest}"
            )
        # The begin and end tokens are counted, and are what is never cut off.
        tokenizer.enable_truncation(config.max_position_embeddings)
        tokenizer.enable_padding(length=config.max_position_embeddings, pad_id=end, pad_token=_END)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Returns `(len(texts), context length)` int32 tokens.

        A text that is too long loses its last tokens but the end-of-text token, with which a
        shorter one is filled up.
        """
        return np.array(self._encode(texts), np.int32)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            return [row.ids for row in self._tokenizer.encode_batch(list(texts))]
        # As for a damaged file, which may be so only for some texts.
        except Exception as error:
            raise _damaged(self._directory, error) from error


def _read_tokenizer(directory: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UsageError(
            "tokenizers must be installed for texts: python3 -m pip install 'jaxlt[clip]'"
        ) from error
    whole = directory / "tokenizer.json"
    parts = (directory / "vocab.json", directory / "merges.txt")
    if not whole.is_file() and not all(part.is_file() for part in parts):
        raise UsageError(f"{directory} must have tokenizer.json, or vocab.json and merges.txt")
    try:
        return Tokenizer.from_file(str(whole)) if whole.is_file() else _assembled(*parts)
    # All that the library raises for a damaged file is a bare Exception.
    except Exception as error:
        raise _damaged(directory, error) from error


def _damaged(directory: Path, error: Exception) -> UsageError:
    reason = " ".join(str(error).split())
    return UsageError(f"tokenizer in {directory} must be whole: {reason:.200}")


def _assembled(vocabulary: Path, merges: Path) -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    words = {"end_of_word_suffix": "</w>", "unk_token": _END}
    tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges), **words))
    tokenizer.add_special_tokens([_BEGIN, _END])
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    steps = [normalizers.NFC(), spaces, normalizers.Lowercase()]
    tokenizer.normalizer = normalizers.Sequence(steps)
    pieces = pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, byte_level])
    numbers = tokenizer.get_vocab()
    tokenizer.post_processor = processors.RobertaProcessing(
        (_END, numbers[_END]), (_BEGIN, numbers[_BEGIN]), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer
