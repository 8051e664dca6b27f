"""A soak: processes train many steps, are killed and go on; do they grow, or leave anything?

`python3 tests/soak.py WORKDIR` trains on the digits and prints, of each stretch between two kills,
how the resident memory of its processes grew after a warm-up, and how many files they held open.
"""

import argparse
import contextlib
import json
import math
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
BATCH, NUM_IMAGES = 66, 390
FLAGS = (
    "--recipe=cc_sam_digits",
    "--network=small_conv",
    "--method=imb_sam",
    "--method.scope=all",
    "--method.rho=0.1",
    f"--batch-size={BATCH}",
    "--evaluation.epochs=25",
    "--measure-every=50",
    "--heartbeat-seconds=30",
)


def free_port():
    with contextlib.closing(socket.socket()) as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


def start(workdir, epochs, number):
    """Starts all processes of a run; their logs are appended to."""
    command = [sys.executable, "-m", "experiments.cifar_lt", f"--workdir={workdir}", *FLAGS]
    command += [f"--epochs={epochs}", "--then.0.epochs=1", "--distributed"]
    command += [f"--coordinator=localhost:{free_port()}", f"--num-processes={number}"]
    return [
        subprocess.Popen(
            [*command, f"--process={process}"],
            cwd=ROOT,
            stderr=workdir.with_suffix(f".{process}.log").open("a"),
        )
        for process in range(number)
    ]


def resident_bytes(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def steps_logged(workdir):
    with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
        return json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    return 0


def watch(processes, workdir, until, warm_up):
    """Samples (step, bytes and files of each) until a step is logged or all have ended."""
    samples = []
    while any(process.poll() is None for process in processes) and steps_logged(workdir) < until:
        time.sleep(1)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            row = [(resident_bytes(p.pid), open_files(p.pid)) for p in processes]
            # One that has ended holds nothing until it is waited for.
            if all(memory for memory, _ in row):
                samples.append((steps_logged(workdir), row))
    return [sample for sample in samples if sample[0] >= samples[0][0] + warm_up]


def report(samples):
    """Prints what a stretch has come to."""
    if len(samples) < 10 or samples[-1][0] == samples[0][0]:
        print("  too short to tell", flush=True)
        return
    steps = np.array([step for step, _ in samples], float)
    for process in range(len(samples[0][1])):
        memory = np.array([row[process][0] for _, row in samples]) / 2**20
        files = [row[process][1] for _, row in samples]
        slope = np.polyfit(steps, memory, 1)[0] * 1000
        print(
            f"  process {process}: steps {steps[0]:.0f} to {steps[-1]:.0f}, resident "
            f"{memory[0]:.1f} to {memory[-1]:.1f} MiB, slope {slope:+.3f} MiB per 1000 steps, "
            f"open files {min(files)} to {max(files)}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--warm-up", type=int, default=600, help="steps that do not count")
    flags = parser.parse_args()
    epochs = math.ceil(flags.steps * BATCH / NUM_IMAGES)
    generator = random.Random(0)
    for kill in range(flags.kills + 1):
        until = (kill + 1) * flags.steps // (flags.kills + 1) if kill < flags.kills else 10**9
        processes = start(flags.workdir, epochs, flags.processes)
        samples = watch(processes, flags.workdir, until, flags.warm_up)
        if kill < flags.kills:
            victim = generator.randrange(flags.processes)
            began = time.monotonic()
            processes[victim].kill()
            statuses = [process.wait() for process in processes]
            print(
                f"kill {kill + 1} of process {victim} after step {steps_logged(flags.workdir)}: "
                f"exit statuses {statuses}, the last after {time.monotonic() - began:.1f} s",
                flush=True,
            )
        else:
            print(f"end: exit statuses {[process.wait() for process in processes]}", flush=True)
        report(samples)
    left = [path.name for path in flags.workdir.glob("checkpoints/*") if not path.name.isdigit()]
    print(f"steps {steps_logged(flags.workdir)}, left in checkpoints beside the steps: {left}")


if __name__ == "__main__":
    main()
