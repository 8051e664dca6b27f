"""How much of the code a plain run passes through: what a reader has to read to follow one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What a reader can hold; a run that would enter more is to be made simpler.
MOST_FILES, MOST_LINES = 55, 8_000
# Counts the files of which a function runs, in all threads. What a module or a class states when it
# is imported does not count: its code is not optimized for local names, as that of functions is.
PROGRAM = """
import runpy, sys, threading
import flax, optax, orbax.checkpoint, tensorflow, tensorflow_datasets  # at full speed
files = set()

def note(frame, event, argument):
    code = frame.f_code
    if code.co_flags & 1:
        files.add(code.co_filename)

threading.settrace(note)
sys.settrace(note)
try:
    runpy.run_module("experiments.cifar_lt", run_name="__main__", alter_sys=True)
finally:
    sys.settrace(None)
    print(*sorted(files), sep="\\n")
"""
FLAGS = (
    "--recipe=focal_sam_cifar10",
    "--data.source=digits",
    "--data.profile.imbalance-factor=10",
    "--network=resnet8",
    "--epochs=1",
)


@pytest.mark.soak
def test_a_plain_run_enters_few_files(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, *FLAGS, f"--workdir={tmp_path / 'run'}"],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "run" / "result.json").exists()
    ours = [Path(line) for line in finished.stdout.splitlines() if line.startswith(str(ROOT))]
    ours = [path for path in ours if path.relative_to(ROOT).parts[0] in ("jaxlt", "experiments")]
    lines = {path: len(path.read_text().splitlines()) for path in ours}
    shown = "\n".join(f"{lines[path]:4} {path.relative_to(ROOT)}" for path in ours)
    print(shown)
    assert len(ours) <= MOST_FILES, shown
    assert sum(lines.values()) <= MOST_LINES, shown
