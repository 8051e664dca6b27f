"""`python3 -m tests.fuzz TARGET [libFuzzer's flags]`: feeds a reader by what its code does.

It needs Atheris: python3 -m pip install -e '.[fuzz]'. A file that does harm is left in the current
directory, or where -artifact_prefix says, and belongs among the target's seeds once it is mended.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris  # pyright: ignore[reportMissingModuleSource]

with atheris.instrument_imports(  # pyright: ignore[reportAttributeAccessIssue]
    include=["jaxlt", "experiments"]
):
    from .targets import TARGETS, run

from jaxlt.errors import UsageError

_LIMITS = ("-rss_limit_mb=3000", "-malloc_limit_mb=1000", "-timeout=20", "-max_len=4096")


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"error: target must be one of {', '.join(TARGETS)}")
    program, name, *flags = sys.argv
    target = TARGETS[name]
    # libFuzzer ends the process without a chance to clean up.
    scratch = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    corpus, warm = scratch / "corpus", scratch / "warm"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)
        # What a first call imports and compiles is no reader's doing.
        (warm / str(number)).mkdir(parents=True)
        with contextlib.suppress(UsageError):
            target.read(warm / str(number), seed)

    def feed(content):
        with tempfile.TemporaryDirectory(dir=scratch) as directory:
            run(target, Path(directory), content)

    atheris.Setup([program, *_LIMITS, *flags, str(corpus)], feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
