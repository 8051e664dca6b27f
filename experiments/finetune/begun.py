"""What a workdir was begun with: a run that was stopped goes on with the same choices."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import msgspec

from experiments import command_line
from experiments.finetune.facts import Facts, facts_of
from experiments.finetune.recommended import backbone_of, recommend
from jaxlt.errors import UsageError
from jaxlt.files.directory import claim_directory, expanded, write_json
from jaxlt.files.foreign_files import read_json, typed
from jaxlt.files.whole_file import unwritable
from jaxlt.recipes.data import AnySource, Data
from jaxlt.recipes.named import vary
from jaxlt.recipes.recipe import Recipe
from jaxlt.runs.differences import image_differences

FILE, FORMAT = "finetune.json", 2


def word(flag: str, words: Sequence[str]) -> str | None:
    """Returns the word given for a flag before the flags are read; None for none."""
    found = command_line.word_of(flag, words, "")
    return None if found.lower() in ("", "none") else found


class _BegunRecord(msgspec.Struct, frozen=True):
    """What the file holds."""

    format: int
    facts: Facts
    backbone: str | None
    validation: float
    recipe: Recipe
    lines: list[str]
    init_from: str | None = None


class Begun(NamedTuple):
    """The facts of a source, the recipe that was chosen for it, and a line on each choice."""

    facts: Facts
    recipe: Recipe
    lines: list[str]
    record: _BegunRecord | None = None
    """What `kept` is to write, None where the choices were read."""

    @contextlib.contextmanager
    def kept(self, workdir: Path) -> Iterator[None]:
        """Writes in the workdir, which is made, what was chosen.

        A mistake that is found before a run has begun leaves nothing there.
        """
        missing = [path for path in (workdir, *workdir.parents) if not path.exists()]
        if self.record is not None:
            claim_directory(workdir)
            write_json(workdir / FILE, msgspec.to_builtins(self.record))
        try:
            yield
        except UsageError:
            if [path.name for path in workdir.iterdir()] == [FILE]:
                (workdir / FILE).unlink()
                # Another program may have begun a run beside it.
                with contextlib.suppress(OSError):
                    for path in missing:
                        path.rmdir()
            raise


def begin(
    workdir: Path,
    place: AnySource,
    backbone: str | None,
    share: float,
    words: Sequence[str] = (),
) -> Begun:
    """Looks at a source and chooses, or reads what was chosen when the workdir was begun.

    Nothing is written before `kept` of what is returned.

    Args:
        workdir: where the choices are kept.
        place: the source; it may lie elsewhere than before.
        backbone: as of `--backbone`.
        share: as of `--validation`.
        words: of the command line, for what decides the choices beside these.

    Raises:
        UsageError: the source cannot be read, or the workdir was begun with other images.
    """
    if (obstacle := unwritable(workdir)) is not None:
        raise UsageError(
            f"workdir must be a writable directory, got {workdir}: {obstacle} is none; give another"
        )
    _check_is_outside(workdir, place)
    skips = word("data.unreadable", words) == "skip"
    run = word("init-from", words)
    file = workdir / FILE
    inside = [path.name for path in workdir.iterdir()] if workdir.is_dir() else []
    # Before the first run there is nothing that other choices would spoil.
    if FILE in inside and len(inside) > 1:
        return _read(file, facts_of(place, skip_unreadable=skips), place, backbone, share, run)
    if inside not in ([], [FILE]):
        raise UsageError(f"workdir must be new, empty or begun by this program, got {workdir}")
    facts = facts_of(place, skip_unreadable=skips, decode=not skips)
    import jax

    on_accelerator = jax.default_backend() != "cpu"
    network = backbone_of(backbone, run)
    # What is no number the parser refuses afterwards.
    given = word("epochs", words) or ""
    epochs = int(given) if given.isdecimal() else None
    recipe, lines = recommend(
        place, facts, network, share, epochs=epochs, on_accelerator=on_accelerator
    )
    if on_accelerator and word("batch-size", words) is None:
        from experiments.finetune.memory import with_fitting_batch

        recipe, line = with_fitting_batch(recipe)
        lines.append(line)
    lines = [facts.shown, *lines]
    record = _BegunRecord(FORMAT, facts, backbone, share, recipe, lines, run)
    return Begun(facts, recipe, lines, record)


def _check_is_outside(workdir: Path, place: AnySource) -> None:
    """Raises UsageError where the pictures of the runs would be among the images of the next."""
    kind, _, rest = Data(source=place).name.partition(":")
    images, made = expanded(rest).resolve(), expanded(workdir).resolve()
    if kind in ("folder", "hf") and images.is_dir() and images in (made, *made.parents):
        raise UsageError(
            f"workdir must lie outside the images, got {workdir} in {rest}; give another --workdir"
        )


def _read(
    file: Path,
    facts: Facts,
    place: AnySource,
    backbone: str | None,
    share: float,
    run: str | None,
) -> Begun:
    found = read_json(file)
    if found.get("format") != FORMAT:
        raise UsageError(
            f"{file} must have format {FORMAT}, got {found.get('format')!r:.20}: another version "
            "of jaxlt wrote it; give another --workdir"
        )
    record: _BegunRecord = typed(found, _BegunRecord, str(file))
    workdir = file.parent
    for name, before, now in (
        ("backbone", record.backbone, backbone),
        ("validation", record.validation, share),
    ):
        if before != now:
            raise UsageError(
                f"--{name} of {workdir} must be {before}, as it was begun, got {now}; give another "
                "--workdir"
            )
    if record.init_from is not None and run is None:
        raise UsageError(
            f"--init-from of {workdir} must be {record.init_from}, as it was begun, got none; give "
            "it, or another --workdir"
        )
    others = _others(record.facts, facts)
    if others or record.facts.shown != facts.shown:
        got = "others" if record.facts.shown == facts.shown else facts.shown
        raise UsageError(
            f"images of {workdir} must be those that it was begun with, {record.facts.shown}, got "
            f"{got}{others}; put the data back, or give another "
            "--workdir, and --init-from RUN to begin with what a run in this one has learned"
        )
    lines = [f"choices are those that {workdir} was begun with", *record.lines]
    return Begun(facts, vary(record.recipe, source=place), lines)


def _others(before: Facts, now: Facts) -> str:
    """Says in what parts of the images are others."""
    # Earlier versions kept them as the file system had them.
    names = tuple(normalize("NFC", name) for name in before.class_names)
    said = [] if names == now.class_names else ["class names are not the same"]
    for name, known in before.known_by.items():
        said += image_differences(name, known, now.known_by.get(name))
    return f": {'; '.join(said)}" if said else ""
