import errno
import fcntl
import json
import os
import socket
import subprocess
import sys

import pytest
from small_training import make_job

from jaxlt import UsageError
from jaxlt.files.directory import LOCK_FILE, expanded, lock_directory, write_json
from jaxlt.training import Workdir, train

HOLDER = """
import pathlib, sys
from jaxlt.files.directory import lock_directory
file = lock_directory(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process, which has the directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def contents(path):
    return {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path, holder):
    workdir = Workdir(tmp_path, {"lr": 0.1})
    # Half a checkpoint of the process at work, which is not for others to clean up.
    (workdir.checkpoints / "10.orbax-checkpoint-tmp").mkdir(parents=True)
    before = contents(tmp_path)
    with pytest.raises(UsageError) as refusal:
        train(make_job(), Workdir(tmp_path, {"lr": 0.1}))
    assert "\n" not in str(refusal.value)
    for part in (str(tmp_path), socket.gethostname(), f"process {holder.pid} "):
        assert part in str(refusal.value)
    assert contents(tmp_path) == before
    assert [path.name for path in workdir.checkpoints.iterdir()] == ["10.orbax-checkpoint-tmp"]
    holder.kill()
    holder.wait()
    train(make_job(), workdir)
    holder_now = f"process {os.getpid()} on {socket.gethostname()}\n"
    assert (tmp_path / LOCK_FILE).read_text() == holder_now


def test_a_run_lets_go_of_its_directory(tmp_path):
    train(make_job(), Workdir(tmp_path, {}))
    lock_directory(tmp_path).close()


def test_a_directory_with_a_lock_alone_is_new(tmp_path):
    lock_directory(tmp_path).close()
    Workdir(tmp_path, {"lr": 0.1})


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    train(make_job(), Workdir(tmp_path, {}))
    assert caplog.text.count(f"{tmp_path} cannot be locked (No locks available)") == 1


def test_a_path_that_cannot_be_looked_at_is_a_line(tmp_path, monkeypatch):
    (tmp_path / "circle").symlink_to("circle")
    for name in ("nowhere", "circle", "a\0b"):
        assert expanded(tmp_path / name) == tmp_path / name
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/a") == tmp_path / "a"
    with pytest.raises(UsageError, match=r"must be reachable, got nnn.*nnn\.\.\.$"):
        expanded("n" * 5000)
    with pytest.raises(UsageError, match=r"must be reachable, got n{300}: File name too"):
        expanded("n" * 300)


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = tmp_path / "result.json"
    write_json(file, {"step": 10})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="must have room for the run: No space left"):
        write_json(file, {"step": 20})
    assert json.loads(file.read_text()) == {"step": 10}
