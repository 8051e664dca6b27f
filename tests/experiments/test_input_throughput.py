import pytest
from jpeg_trees import write_tree

from experiments import input_throughput
from jaxlt.errors import UsageError


def run(monkeypatch, *flags):
    monkeypatch.setattr("sys.argv", ["input_throughput", *flags])
    input_throughput.main()


def test_every_way_is_measured(tmp_path, monkeypatch, capsys, caplog):
    caplog.set_level("INFO")
    tree = write_tree(tmp_path, "imagenet", (4, 2))
    flags = ("--image-size", "16", "--batch-size", "2", "--steps", "2", "--rounds", "1")
    run(monkeypatch, "--source", tree.spec, *flags)
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0].strip() for row in rows] == [
        "bare decode_jpeg and resize",
        "bare, with antialiasing",
        "resized_crop_flip",
        "and color_jitter",
    ]
    assert all(float(row[1]) > 0 for row in rows)
    assert float(rows[0][2]) == 1
    assert "next:\n  python3 -m experiments.scaling --core-images " in caplog.text


def test_what_is_no_set_of_files_is_refused(monkeypatch):
    with pytest.raises(UsageError, match="source must be of image files, got digits"):
        run(monkeypatch, "--source", "digits")
    with pytest.raises(UsageError, match="--source must be given"):
        run(monkeypatch)
    with pytest.raises(UsageError, match="steps must be an integer of at least 1, got 0"):
        run(monkeypatch, "--source", "digits", "--steps", "0")
