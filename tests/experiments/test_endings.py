"""Programs that end before their work begins: by Ctrl-C among imports, without a package."""

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from small_runs import HANGS

from experiments import endings

ROOT = Path(__file__).parents[2]
# Whatever is imported, none but the core's dependencies are there, as after `pip install -e .`.
CORE_ALONE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""
TRAIN = ["flax", "jinja2", "matfree", "matplotlib", "msgspec", "orbax", "PIL", "safetensors"]
TRAIN += ["sklearn", "tabulate", "tensorboardX", "tensorflow", "tensorflow_datasets", "tensorstore"]
TRAIN += ["tqdm"]


def without(packages, directory, *words):
    """Runs a program where packages cannot be imported; returns its status, output and errors."""
    (directory / "sitecustomize.py").write_text(CORE_ALONE.format(hidden=tuple(packages)))
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("program", ["cifar_lt", "predict", "report", "table", "landscape"])
def test_a_core_only_installation_names_the_extra(tmp_path, program):
    status, output, errors = without(TRAIN, tmp_path, f"experiments.{program}", "--help")
    assert (status, output) == (2, "")
    assert re.fullmatch(
        r"error: \w+ must be installed, got none; it comes with the extra train: "
        r"python3 -m pip install -e '\.\[train\]'\n",
        errors,
    )


def test_a_package_that_is_missed_late_is_a_line_too(tmp_path):
    words = ("experiments.cifar_lt", "--data.source", "digits", "--workdir", str(tmp_path / "run"))
    status, _, errors = without(["orbax"], tmp_path, *words)
    assert status == 2
    assert errors.splitlines()[-1].startswith("error: orbax must be installed, got none")
    assert "Traceback" not in errors


def test_the_list_of_programs_needs_no_package(tmp_path):
    status, output, errors = without(["jax", "numpy", *TRAIN], tmp_path, "experiments")
    assert (status, errors) == (0, "")
    assert "\npredict " in output


def test_each_package_has_the_extra_that_brings_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    modules = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        for name in distributions:
            modules.setdefault(re.sub(r"[-_.]+", "-", name).lower(), []).append(module)
    brought = {}
    for extra, requirements in project["optional-dependencies"].items():
        for requirement in requirements if extra not in ("test", "dev", "fuzz") else ():
            name = re.sub(r"[-_.]+", "-", re.split(r"[<>=~! ;\[]", requirement)[0]).lower()
            for module in modules.get(name, [name.replace("-", "_")]):
                brought.setdefault(module, set()).add(extra)
    del brought["jaxlt"]
    assert {"tensorflow", "tokenizers", "onnx", "torch"} <= set(brought)
    for module, extras in brought.items():
        line = endings.missing_package(ModuleNotFoundError("", name=module))
        named = re.findall(r"-e '\.\[(\w+)\]'$", line or "")
        assert len(named) == 1, module
        assert set(named) <= extras, line


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError(),
        ImportError("cannot import name", name="flax"),
        ModuleNotFoundError("of our own", name="jaxlt.nowhere"),
        ModuleNotFoundError("of Python's", name="_ctypes"),
        ModuleNotFoundError("of no name"),
    ],
)
def test_a_fault_keeps_its_traceback(error, capsys):
    assert endings.missing_package(error) is None
    endings.explain(type(error), error, None)
    assert type(error).__name__ in capsys.readouterr().err


def test_an_error_that_a_library_makes_of_an_interrupt_is_none_of_ours(monkeypatch, capsys):
    monkeypatch.setattr(endings, "_interrupted", 0)
    with pytest.raises(KeyboardInterrupt):
        endings.interrupt(signal.SIGINT, None)
    with pytest.raises(SystemExit) as stop:
        endings.explain(ImportError, ImportError("numpy.core.multiarray failed to import"), None)
    assert stop.value.code == 130
    assert capsys.readouterr().err == "stopped by SIGINT\n"


@pytest.mark.parametrize(
    ("module", "signum"),
    [
        ("experiments.endings", signal.SIGINT),
        ("numpy", signal.SIGINT),
        ("jax", signal.SIGTERM),
        ("msgspec", signal.SIGINT),
        ("flax", signal.SIGINT),
        ("orbax.checkpoint", signal.SIGINT),
    ],
)
def test_a_signal_among_imports_is_one_line(tmp_path, module, signum):
    """Sent when Python says that it has imported a module, in the first second and later."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "experiments.predict", tmp_path, "a.png"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, they and their processes ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None, "it is a pipe"
    for line in process.stderr:
        if line.rpartition("|")[2].strip() == module:
            process.send_signal(signum)
            break
    _, rest = process.communicate(timeout=HANGS)
    said = [line for line in rest.splitlines() if not line.startswith("import time:")]
    assert said == [f"stopped by {signum.name}"]
    # Python ends by the signal itself where it came within a text that was executed, as dataclasses
    # are made; shells show both as 130.
    assert process.returncode in (128 + signum, -signum)


def test_ctrl_c_is_left_alone_where_it_is_ignored_and_where_the_package_is_imported():
    programs = {
        "import signal; s = signal.getsignal(signal.SIGINT); import experiments; "
        "print(signal.getsignal(signal.SIGINT) == s)": "True",
        "import sys, experiments; print(sys.excepthook is sys.__excepthook__)": "True",
    }
    for program, printed in programs.items():
        command = [sys.executable, "-c", program]
        assert subprocess.check_output(command, cwd=ROOT, text=True).strip() == printed
