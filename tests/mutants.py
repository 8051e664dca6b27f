"""`python3 -m tests.mutants [NAME ...]`: puts faults into a copy of the package, one at a time.

Each must make one of the tests named beside it fail. What is printed is a table in Markdown: which
test catches each fault, and in how many seconds. A fault that no test catches makes the exit status
1. The copy holds what git tracks, as it is in the checkout, which itself is left alone.
"""

import argparse
import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple


class Fault(NamedTuple):
    """A fault, and what is to catch it.

    Attributes:
        name: what is wrong.
        file: in the package.
        test: a file of the fast lane, or a test in one.
        before: text that the file holds exactly once.
        after: what takes its place.
    """

    name: str
    file: str
    test: str
    before: str
    after: str


# fmt: off
FAULTS = (
    # What is trained on is not what is evaluated.
    Fault("held-out images are trained on",
          "data/sampling/validation.py", "data/sampling/test_validation.py",
          "rest = np.delete(np.arange(len(labels)), held_out)",
          "rest = np.arange(len(labels))"),
    # The equation, and the ways to compute it.
    Fault("the perturbation goes downhill",
          "sharpness/perturbation.py", "methods/test_sam.py",
          "stop_gradient((f * s",
          "stop_gradient((-f * s"),
    Fault("a norm without its square root",
          "sharpness/perturbation.py", "methods/test_sam.py",
          "return jnp.sqrt(sum(squares[1:], squares[0]))",
          "return sum(squares[1:], squares[0])"),
    Fault("ASAM scales the direction once, not twice",
          "sharpness/perturbation.py", "methods/test_golden_trajectories.py",
          "[s * (p * d) for s, p, d in zip(weight_scale, shrunk, direction, strict=True)]",
          "[p * d for p, d in zip(shrunk, direction, strict=True)]"),
    Fault("a complex parameter is taken for its conjugate",
          "sharpness/real_parts.py", "sharpness/test_contract.py",
          "sign * jnp.imag(leaf)",
          "-sign * jnp.imag(leaf)"),
    Fault("the second group starts where the first has moved",
          "sharpness/equation.py", "sharpness/test_sharpness.py",
          "moved = add(scope.theta, eps)",
          "moved = scope.theta = add(scope.theta, eps)"),
    Fault("what a group takes over is left in the clean part",
          "sharpness/equation.py", "methods/test_brute_force.py",
          "x.astype(d[0].dtype) - sum(d)",
          "x.astype(d[0].dtype)"),
    Fault("the closed form forgets the bias",
          "batch/class_gradients.py", "batch/test_class_gradients.py",
          "(products, self.same_class)[",
          "(products, 0 * self.same_class)["),
    Fault("the closed form leaves out what the bias owes to the kernel",
          "sharpness/closed_form.py", "sharpness/test_closed_form.py",
          "return as_they_are and not _theta_reaches(program, others, scope)",
          "return as_they_are"),
    Fault("a pass over a group takes one image of the next",
          "sharpness/partial_passes.py", "sharpness/test_partial_passes.py",
          "places < limit",
          "places <= limit"),
    Fault("a device's images are counted for those of the batch",
          "batch/over_axis.py", "sharpness/test_sharding.py",
          "return jax.lax.psum(losses, axis_name), pullback",
          "return jax.lax.pmean(losses, axis_name), pullback"),
    # The methods.
    Fault("ImbSAM takes the head for the tail",
          "methods/imb_sam.py", "methods/test_golden_trajectories.py",
          "tail = (counts < tail_threshold)",
          "tail = (counts >= tail_threshold)"),
    Fault("SSE-SAM swaps the radii of head and tail",
          "methods/sse_sam.py", "methods/test_golden_trajectories.py",
          "jnp.stack([1 - tail, tail])",
          "jnp.stack([tail, 1 - tail])"),
    Fault("SSE-SAM switches one step late",
          "methods/sse_sam.py", "methods/test_sse_sam.py",
          "state.count < switch_step",
          "state.count <= switch_step"),
    Fault("Focal-SAM's exponent is one too large",
          "methods/focal_sam.py", "methods/test_golden_trajectories.py",
          "jnp.power(1 - prior, at_step(gamma, step))",
          "jnp.power(1 - prior, 1 + at_step(gamma, step))"),
    Fault("CC-SAM's radius grows with the class",
          "methods/cc_sam.py", "methods/test_cc_sam.py",
          "jnp.maximum(train_counts - 1, 1), -0.25)",
          "jnp.maximum(train_counts - 1, 1), 0.25)"),
    Fault("CC-SAM counts one image too many a class",
          "methods/cc_sam.py", "methods/test_cc_sam.py",
          "jnp.maximum(train_counts - 1, 1)",
          "jnp.maximum(train_counts, 1)"),
    # The losses.
    Fault("class weights are not normalized",
          "losses/weights.py", "losses/test_losses.py",
          "return weights * (counts.size / weights.sum())",
          "return weights"),
    Fault("logits are adjusted the wrong way",
          "losses/softmax.py", "losses/test_losses.py",
          "+ tau * log_prior[None]",
          "- tau * log_prior[None]"),
    Fault("LDAM's margins fall with the square root",
          "losses/margins.py", "losses/test_losses.py",
          "counts**-0.25",
          "counts**-0.5"),
    Fault("GCL differentiates its focusing factor",
          "losses/margins.py", "losses/test_gcl.py",
          "jax.lax.stop_gradient((-jnp.expm1(-loss)) ** focusing)",
          "((-jnp.expm1(-loss)) ** focusing)"),
    Fault("LADE rewards what it is to punish",
          "losses/lade.py", "losses/test_lade.py",
          "log_mean - regularization",
          "log_mean + regularization"),
    Fault("smoothing takes nothing from the label",
          "losses/label_smoothing.py", "losses/test_label_smoothing.py",
          "(1 - factor) * cross_entropy",
          "cross_entropy"),
    # What is seen, and when.
    Fault("the seed is left out of the draw",
          "data/sampling/random_numbers.py", "data/sampling/test_samplers.py",
          'f"{stream}/{seed}"',
          'f"{stream}"'),
    Fault("the epoch is left out of the draw",
          "data/sampling/samplers.py", "data/sampling/test_samplers.py",
          "cycle * 3 + np.arange(3)",
          "np.arange(3)"),
    Fault("images are drawn with replacement",
          "data/sampling/samplers.py", "data/sampling/test_samplers.py",
          "return random_permutation(self._size, words)",
          "return random_permutation(self._size, words) // 2 * 2"),
    Fault("images are normalized by the variance",
          "data/sources/source.py", "data/sources/test_normalization.py",
          "scale = 1 / (255 * np.asarray(std))",
          "scale = 1 / (255 * np.asarray(std) ** 2)"),
    Fault("a split of other labels is taken",
          "data/sampling/split_file.py", "data/sampling/test_splits.py",
          "!= (len(labels), num_classes, labels_digest(labels))",
          "!= (len(labels), num_classes, split.labels_sha256)"),
    Fault("mixup gives the partner the image's share",
          "training/step/mixup.py", "training/step/test_mixup.py",
          "share * images + (1 - share) * images[partner]",
          "(1 - share) * images + share * images[partner]"),
    Fault("a later stage sees the draws of the first",
          "recipes/input_pipelines.py",
          "recipes/test_built_stage.py::test_stages_of_one_run_see_draws_of_their_own",
          'stream_key(seed, f"stage {number}") if number else seed',
          "seed"),
    # A step.
    Fault("a loss draws the same at each step",
          "training/step/network_pass.py",
          "training/step/test_step.py::test_each_step_and_each_key_draws_anew",
          "jax.random.fold_in(self.state.key, self.state.step)",
          "self.state.key"),
    Fault("perturbed passes take statistics of their own",
          "training/step/train_step.py", "training/step/test_step.py::TestHeldStatistics",
          'held=statistics.get("held_statistics")',
          "held=None"),
    Fault("weights decay by half of what is asked",
          "recipes/optimizer.py", "recipes/test_optimizer.py",
          "optax.add_decayed_weights(self.weight_decay)",
          "optax.add_decayed_weights(self.weight_decay / 2)"),
    Fault("the learning rate warms up one epoch late",
          "recipes/optimizer.py", "recipes/test_optimizer.py",
          "begun = epoch + 1",
          "begun = epoch"),
    Fault("averaged weights are divided by one epoch too many",
          "training/step/weight_average.py", "training/step/test_weight_average.py",
          "taken / jnp.maximum(num_averaged, 1)",
          "taken / (num_averaged + 1)"),
    # A run and its files.
    Fault("a resumed stage sees its first images again",
          "training/loop/train.py", "training/loop/test_loop.py",
          "steps.chunks(step - begin, stop - begin)",
          "steps.chunks(0, stop - step)"),
    Fault("the newest checkpoint is believed unseen",
          "runs/restore.py", "runs/test_checkpoint.py",
          'record.pop("digest") != digest(state)',
          'record.pop("digest") is None'),
    Fault("a damaged checkpoint is not passed over",
          "runs/restore.py", "runs/test_checkpoint.py",
          "damaged.append(step)",
          "raise"),
    Fault("a run is finished before its last checkpoint is whole",
          "training/loop/train.py", "training/loop/test_loop.py",
          "counts as finished.\n        self._wait()",
          "counts as finished."),
    Fault("measuring counts as training",
          "training/loop/train.py", "training/step/test_measurement.py",
          "placed, chunk)\n                self._stopwatch.start()",
          "placed, chunk)"),
    Fault("compiling counts as training",
          "training/loop/train.py", "training/loop/test_loop.py",
          "self._stopwatch.lap(without=program.compile_seconds - compiled)",
          "self._stopwatch.lap()"),
    Fault("metrics of steps that are taken again stay",
          "runs/run.py", "runs/test_run.py",
          "self.workdir.keep_metrics_until(step)",
          "pass"),
    Fault("the lock is not taken",
          "files/directory.py", "files/test_directory.py",
          "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
          "pass"),
    Fault("a file is written in place",
          "files/directory.py", "files/test_directory.py",
          "partial = path.with_name(path.name + PARTIAL)",
          "partial = path"),
    Fault("another recipe goes on with the run",
          "runs/workdir.py", "runs/test_workdir.py",
          "if found != wanted:",
          "if found.keys() != wanted.keys():"),
    # What is read.
    Fault("an image lies on its side as the camera was held",
          "data/sources/decoding.py", "data/sources/test_decoding.py",
          "if orientation in _UPRIGHT:",
          "if orientation in ():"),
    Fault("a turned JPEG is decoded in training as it is stored",
          "data/sources/decoding.py", "data/sources/test_decoding.py",
          "in (1, 3, 4) and not is_turned",
          "in (1, 3, 4)"),
    Fault("a notebook's checkpoints are a class",
          "data/sources/image_files.py", "data/sources/test_folder.py",
          'return name.startswith(".") or',
          "return"),
    Fault("a link brings a class the images of another",
          "data/sources/image_files.py", "data/sources/test_folder.py",
          "and entry.is_symlink() and searched.overlap(path)",
          "and False"),
    # What is measured.
    Fault("padding of the last batch counts",
          "evaluation/accuracy.py", "evaluation/test_accuracy.py",
          "add(real.astype(jnp.int32))",
          "add(1)"),
    Fault("a class of just so many images is many-shot",
          "evaluation/accuracy.py", "evaluation/test_accuracy.py",
          "counts > self.many_above",
          "counts >= self.many_above"),
    Fault("labels are given by the order of folders",
          "evaluation/class_folders.py", "evaluation/test_class_folders.py",
          "if min(found) >= 0:\n        return found",
          "if min(found) >= 0:\n        return list(range(len(names)))"),
    Fault("a predictor's first class is the least likely",
          "evaluation/prediction.py",
          "evaluation/test_prediction.py::test_top_k_are_the_largest_softmax_probabilities",
          "np.argsort(-logits",
          "np.argsort(logits"),
    Fault("a confidence on an edge is in the bin above",
          "evaluation/calibration.py", "evaluation/test_confidence_bins.py",
          'confidence, side="left"',
          'confidence, side="right"'),
    Fault("a score at the threshold is rejected",
          "evaluation/open_set.py", "evaluation/test_open_set.py",
          "self.scores < threshold",
          "self.scores <= threshold"),
    Fault("padding counts in the Hessian",
          "analysis/dataset_losses.py", "analysis/test_dataset_losses.py",
          "size = self.counts.sum()",
          "size = self.labels.size"),
    Fault("a direction is normalized by tensor, not by filter",
          "analysis/landscape.py", "analysis/test_directions.py",
          "axes = tuple(range(w.ndim - 1))",
          "axes = tuple(range(w.ndim))"),
    Fault("a file whose predictions are not the run's is written",
          "evaluation/export.py", "evaluation/test_exported_network.py",
          "if not difference <= most:",
          "if difference is most:"),
    Fault("half a file takes the place of the old one",
          "files/whole_file.py", "files/test_whole_file.py",
          "with partial.open(\"wb\") as file:",
          "with path.open(\"wb\") as file:"),
    Fault("classes of another run keep their weights by label, not by name",
          "models/weights/kept_classes.py",
          "recipes/test_initial_run.py::test_names_and_not_labels_decide",
          "places = np.array([label_of.get(name, -1) for name in new])",
          "places = np.minimum(np.arange(len(new)), len(old) - 1)"),
    Fault("keys and values of timm's transformers change places",
          "models/clip/timm_vit.py", "models/clip/test_timm_vit.py",
          '("q_proj", "k_proj", "v_proj"), parts',
          '("q_proj", "v_proj", "k_proj"), parts'),
)
# fmt: on

_ROOT = Path(__file__).parents[1]
# Of one run of tests, which a fault may make wait for ever.
_TIMEOUT = 900
# What pytest exits with where all tests passed, and where one failed.
_PASSED, _FAILED = 0, 1


class Outcome(NamedTuple):
    """What became of tests: the first that failed, or else what was said last; and seconds."""

    status: int | None
    said: str
    of_test: float
    in_all: float


class Copy:
    """A copy of the checkout, in which tests run."""

    def __init__(self, scratch: Path, number: int):
        self._root, self._report = scratch / f"copy{number}", scratch / f"report{number}.xml"
        # Copies share what they compile: a fault makes another program, which has another key.
        self._cache = scratch / "cache"
        listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=_ROOT, text=True)
        for name in filter(None, listed.split("\0")):
            if (_ROOT / name).is_file():
                (self._root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(_ROOT / name, self._root / name)
        _, found = self._python("-c", "import jaxlt; print(jaxlt.__file__)")
        if found.strip().rpartition("\n")[2] != str(self._root / "jaxlt" / "__init__.py"):
            sys.exit(f"error: tests must take the package in {self._root}, got {found}")

    def outcome(self, test: str, fault: Fault | None = None) -> Outcome:
        """Runs tests until one fails."""
        options = ("-x", "-q", "-m", "not soak", "-o", f"cache_dir={self._cache}")
        options += ("-o", "junit_family=xunit1", f"--junitxml={self._report}")
        began = time.monotonic()
        with contextlib.nullcontext() if fault is None else self._changed(fault):
            status, output = self._python("-m", "pytest", *options, f"tests/{test}")
        in_all = time.monotonic() - began
        if status != _FAILED:
            lines = output.splitlines() or [""]
            said = next((line for line in lines if line.startswith("ERROR")), lines[-1])
            return Outcome(status, said, 0.0, in_all)
        case = next(
            case
            for case in ET.parse(self._report).iter("testcase")
            if case.find("failure") is not None or case.find("error") is not None
        )
        file, modules = case.get("file", ""), case.get("classname", "").split(".")
        # What follows the module's name is a class.
        names = [file.removeprefix("tests/"), *modules[file.count("/") + 1 :], case.get("name", "")]
        return Outcome(status, "::".join(names), float(case.get("time", 0)), in_all)

    def _python(self, *arguments: str) -> tuple[int | None, str]:
        # Python tells modules apart by second and size, which a fault need not change.
        own = {"PYTHONPATH": str(self._root), "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self._root,
            env=os.environ | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=_TIMEOUT)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            return None, f"more than {_TIMEOUT} seconds"
        finally:
            # With all processes that the tests have started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    @contextlib.contextmanager
    def _changed(self, fault: Fault) -> Iterator[None]:
        path = self._root / "jaxlt" / fault.file
        whole = path.read_text()
        path.write_text(faulty(fault, whole))
        try:
            yield
        finally:
            path.write_text(whole)


def faulty(fault: Fault, whole: str) -> str:
    """Puts a fault into a file's text."""
    if (found := whole.count(fault.before)) != 1:
        raise ValueError(f"{fault.file} must hold {fault.before!r} once, got it {found} times")
    return whole.replace(fault.before, fault.after)


def outcomes(copies: Sequence[Copy], runs: Sequence[tuple[str, Fault | None]]) -> list[Outcome]:
    """Returns what became of tests with faults, as many at once as there are copies."""
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)

    def one(run: tuple[str, Fault | None]) -> Outcome:
        copy = free.get()
        try:
            return copy.outcome(*run)
        finally:
            free.put(copy)

    found: list[Outcome] = []
    with ThreadPoolExecutor(len(copies)) as pool:
        for (test, fault), outcome in zip(runs, pool.map(one, runs), strict=True):
            found.append(outcome)
            what = f"{test} without a fault" if fault is None else fault.name
            told = f"[{len(found)}/{len(runs)}] {what}: {outcome.said} ({outcome.in_all:.0f} s)"
            print(told, file=sys.stderr, flush=True)
    return found


def try_all(faults: Sequence[Fault], copies: Sequence[Copy]) -> str:
    """Prints what catches each fault, and returns what is wrong with that."""
    tests = sorted({fault.test for fault in faults})
    sound = outcomes(copies, [(test, None) for test in tests])
    if bad := [test for test, one in zip(tests, sound, strict=True) if one.status != _PASSED]:
        return f"tests must pass without a fault, got failures of {', '.join(bad)}"
    found = outcomes(copies, [(fault.test, fault) for fault in faults])
    print("| fault | file | caught by | its seconds | seconds in all |")
    print("| --- | --- | --- | --- | --- |")
    wrong = []
    for fault, (status, said, of_test, in_all) in zip(faults, found, strict=True):
        if status != _FAILED:
            said = "nothing" if status == _PASSED else f"broken: {said}"
            wrong.append(f"{fault.name} ({said})")
        said = said.replace("|", r"\|")
        print(f"| {fault.name} | {fault.file} | {said} | {of_test:.1f} | {in_all:.0f} |")
    return f"faults must be caught, got {', '.join(wrong)}" if wrong else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to try, all by default")
    parser.add_argument("--jobs", type=int, default=2, help="how many are tried at once")
    parser.add_argument("--list", action="store_true", help="name the faults and try none")
    flags = parser.parse_args()
    if unknown := sorted(set(flags.names) - {fault.name for fault in FAULTS}):
        parser.error(f"NAME must be one that --list prints, got {unknown[0]!r}")
    if flags.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {flags.jobs}")
    faults = [fault for fault in FAULTS if not flags.names or fault.name in flags.names]
    if flags.list:
        print(*(fault.name for fault in faults), sep="\n")
        return
    # As an interrupt does, it lets the copies go.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        copies = [Copy(Path(scratch), number) for number in range(flags.jobs)]
        if wrong := try_all(faults, copies):
            sys.exit(f"error: {wrong}")


if __name__ == "__main__":
    main()
