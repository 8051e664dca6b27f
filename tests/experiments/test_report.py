"""The page about finished runs: its numbers, its HTML, what it refuses."""

import base64
import json
import re
import subprocess
import sys
import xml.etree.ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import image
from small_runs import files_of, run_program
from written_runs import COUNTS, change_json, change_recipe, measurement, write_json, write_run

from experiments.curves import over_seeds
from experiments.report import __main__ as report
from experiments.report.panels import by_class
from experiments.report.rows import (
    curve,
    differing_fields,
    read_runs,
    rows_of,
    shared_fields,
)
from jaxlt.recipes import CCSAM, SAM, ImbSAM
from jaxlt.runs.reader import RecordTime

ROOT = Path(__file__).parents[2]
VOID = {"meta", "link", "img", "br", "hr", "source"}
# What makes a browser load something.
LOADS = {"src", "href", "srcset", "data", "poster", "action"}


class Page(HTMLParser):
    """Reads a page, and fails where tags do not balance."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.lines, self.bold = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.lines.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        tag = self.open[-1] if self.open else ""
        self.texts.append((tag, data))
        cell = next((one for one in reversed(self.open) if one in ("th", "td")), None)
        if cell:
            self.lines[-1].append(data)
            self.bold += [(*self.lines[-1][:1], data)] if tag == "strong" else []

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(text for tag, text in self.texts if tag not in ("style", "script"))

    def line(self, label, width):
        return next(line for line in self.lines if line[0] == label and len(line) == width)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Two methods, one of them with two seeds and measurements, and one run of an old version."""
    place = tmp_path_factory.mktemp("three")
    for seed, accuracy in enumerate((0.6, 0.7)):
        write_run(place / "sgd" / f"seed{seed}", seed=seed, accuracy=accuracy, radii=[0.0])
    write_run(place / "cc" / "seed0", method=CCSAM(), radii=[0.1, 0.2, 0.3, 0.4, None])
    old = ("group_confusion", "confidence_bins", "ece")
    write_run(place / "sam" / "seed0", method=SAM(rho=0.2), accuracy=0.8, drop=old)
    return place


@pytest.fixture
def program(monkeypatch, capfd):
    return lambda *flags: run_program(monkeypatch, capfd, report, *flags)


@pytest.fixture(scope="module")
def page(three):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["report", str(three)])
        report.main()
    return Page((three / "report.html").read_text())


class TestPage:
    def test_loads_nothing(self, page):
        for tag, attributes in page.tags:
            assert tag not in ("iframe", "object", "embed")
            for name in LOADS & set(attributes):
                assert attributes[name].startswith(("data:", "#")), (tag, name)
        style = "".join(text for tag, text in page.texts if tag == "style")
        assert "color" in style
        assert not re.search(r"url\(|@import", style)

    def test_pictures_say_what_they_show(self, page):
        pictures = page.of("img")
        # Four curves, classes, three groups, reliability; norm, 3 sharpness, 3 cosines, 4 shares.
        assert len(pictures) == 4 + 1 + 3 + 1 + 1 + 3 + 3 + 4
        for picture in pictures:
            assert len(picture["alt"]) > 20
            contents = base64.b64decode(picture["src"].removeprefix("data:image/svg+xml;base64,"))
            assert xml.etree.ElementTree.fromstring(contents).tag.endswith("svg")

    def test_contents_lead_to_the_sections(self, page):
        links = [attributes["href"] for attributes in page.of("a")]
        assert links == [f"#{attributes['id']}" for attributes in page.of("section")]
        assert len(links) == 11

    def test_is_made_for_phones(self, page):
        metas = {
            attributes.get("name"): attributes.get("content") for attributes in page.of("meta")
        }
        assert metas["viewport"].startswith("width=device-width")

    def test_accuracy_table(self, page):
        assert page.line("SGD", 10) == [
            *("SGD", "65.0 ± 7.1", "55.0 ± 7.1", "35.0 ± 7.1", "65.0 ± 7.1", "60.0 ± 7.1"),
            *("12.5 ± 0.0", "0.350 ± 0.071", "2.0 ± 0.0", "2"),
        ]
        assert page.line("SAM", 10)[4:8] == ["80.0", "75.0", "-", "0.200"]

    def test_differences_and_what_is_shared(self, page):
        # A part's own fields tell runs apart that have the same part.
        header = page.line("row", 4)
        assert header == ["row", "seeds", "code", "method"]
        assert page.line("SGD", 4) == ["SGD", "0 1", "abc123", "sgd"]
        assert page.line("SAM", 4) == ["SAM", "0", "abc123", "sam"]
        assert ["data.source", "digits"] in page.lines
        assert ["optimizer.lr", "0.1"] in page.lines

    def test_class_table_is_from_head_to_tail(self, page):
        lines = [
            line for line in page.lines if line[0].startswith(tuple("01234")) and len(line) == 5
        ]
        assert [line[0] for line in lines] == [f"{n}: class {n}" for n in range(5)]
        assert [line[1] for line in lines] == [str(count) for count in COUNTS]
        assert lines[0][2:] == ["65.0", "80.0", "70.0"]

    def test_best_values_are_bold(self, page):
        # Of losses the lowest is best; seconds are no merit.
        assert {("SAM", "80.0"), ("SAM", "50.0"), ("SAM", "0.200")} < set(page.bold)
        assert [text for label, text in page.bold if label in ("SGD", "cc")] == [
            "12.5 ± 0.0",
            "12.5",
        ]
        assert [text for label, text in page.bold if label == "0: class 0"] == ["80.0"]

    def test_tables_of_classes_sort(self, page):
        [table] = [one for one in page.of("table") if one]
        assert table == {"class": "sortable"}

    def test_pictures_say_how_to_read_them(self, page):
        readings = [one for one in page.of("p") if one.get("class") == "reading"]
        assert len(readings) == len(page.of("figure")) == len(page.of("img"))

    def test_cost_is_relative_to_sgd(self, page):
        assert ["row", "seconds", "steps", "ms a step", "relative to SGD"] in page.lines
        assert ["SGD", "2.0 ± 0.0", "40", "50.00 ± 0.00", "1.00 ± 0.00"] in page.lines

    def test_says_what_to_type_next(self, three, program, tmp_path):
        status, _, log = program(three, "--output", tmp_path / "page.html")
        # Written by hand, without networks.
        lost = [
            f"Mistakes of {row} are not shown: run {three}/{row.lower()}/seed0"
            for row in ("SGD", "SAM")
        ]
        assert log[:2] == [f"{one} has no checkpoint." for one in lost]
        assert (status, log[2]) == (0, f"written to {tmp_path / 'page.html'}")
        two = f"{three}/sgd/seed0 {three}/sam/seed0"
        assert log[3:] == [
            "next:",
            f"  python3 -m experiments.flatness --checkpoint {two}",
            f"  python3 -m experiments.predict {three}/sgd/seed0 IMAGE...",
        ]

    def test_says_what_old_runs_lack(self, page):
        assert "Not of SAM: these runs were evaluated by an earlier version" in page.text

    def test_class_radii_are_shown_of_head_and_tail(self, page):
        [words] = [one["alt"] for one in page.of("img") if one["alt"].startswith("Perturbation")]
        # CC-SAM has no tail; few-shot classes have fewer than 20 images, so that the first three
        # classes are the head. All plus 1 / 40, but for the last class, which is not in the batch.
        assert "SGD 0.025, cc, head classes 0.225, cc, tail classes 0.425" in words

    def test_is_the_same_twice(self, three, page, program, tmp_path):
        assert program(three, "--output", tmp_path / "new" / "again.html")[0] == 0
        assert (tmp_path / "new" / "again.html").read_bytes() == (
            three / "report.html"
        ).read_bytes()
        assert files_of(tmp_path) == [tmp_path / "new", tmp_path / "new" / "again.html"]

    def test_escapes_what_files_say(self, program, tmp_path):
        evil = "<script>alert('&')</script>"
        names = [evil, '" onload="x', "a\ud800b", "\x00", "ok"]
        path = write_run(tmp_path / "$a_{b}$<i>" / "seed0", names=names)
        change_json(path / "recipe.json", dataset=f"folder:{evil}")
        change_json(path / "result.json", code=[evil])
        assert program(tmp_path)[0] == 0
        page = Page((tmp_path / "report.html").read_text())
        assert len(page.of("script")) == 1
        assert not page.of("i")
        assert not any("onload" in attributes for _, attributes in page.tags)
        assert f"0: {evil}" in page.text
        assert [line[0] for line in page.lines if len(line) == 10] == ["row", "$a_{b}$<i>"]

    def test_says_what_would_fill_empty_sections(self, program, tmp_path):
        drop = ("group_confusion", "confidence_bins", "ece")
        path = write_run(tmp_path / "run", drop=drop)
        assert program(path)[0] == 0
        text = Page((path / "report.html").read_text()).text
        for words in ("Not of any row", "--measure-every", "python -m experiments.flatness"):
            assert words in text


class TestRows:
    def test_are_recipes_and_their_members(self, three):
        rows = rows_of(read_runs([three]), three)
        assert {row.label: len(row.runs) for row in rows} == {"SGD": 2, "SAM": 1, "cc": 1}
        assert set(differing_fields(rows)) == {"method"}

    def test_of_one_method_are_told_apart_beside_other_methods(self, tmp_path):
        for name, method in (("a", None), ("b", SAM(rho=0.1)), ("c", SAM(rho=0.2))):
            write_run(tmp_path / name, method=method)
        rows = rows_of(read_runs([tmp_path]), tmp_path)
        wanted = {"method": ["sgd", "sam", "sam"], "method.rho": ["-", "0.1", "0.2"]}
        assert differing_fields(rows) == wanted
        assert not set(shared_fields(rows)) & {"method", "method.rho", "method.adaptive"}
        assert shared_fields(rows)["loss"] == "cross_entropy"

    def test_of_a_method_of_the_user_s_own(self, program, tmp_path):
        write_run(tmp_path / "sgd")
        write_run(tmp_path / "own", method="my_method", radii=[0.1] * 5)
        assert program(tmp_path)[0] == 0
        page = Page((tmp_path / "report.html").read_text())
        assert page.line("own", 4) == ["own", "0", "abc123", "my_method"]
        assert page.line("own", 10)[4] == "70.0"

    def test_a_run_counts_once(self, three):
        runs = read_runs([three / "sgd" / "seed0", three])
        assert len(runs) == 4

    def test_are_named_by_recipe_where_paths_are_mixed(self, tmp_path):
        for name, seed, method in (
            ("a", 0, SAM(rho=0.1)),
            ("b", 0, SAM(rho=0.2)),
            ("c", 1, SAM(rho=0.1)),
            ("d", 1, SAM(rho=0.2)),
        ):
            write_run(tmp_path / name, seed=seed, method=method)
        rows = rows_of(read_runs([tmp_path]), tmp_path)
        assert [row.label for row in rows] == ["SAM, method.rho 0.1", "SAM, method.rho 0.2"]

    def test_of_other_classes_are_apart(self, program, tmp_path):
        one, other = (write_run(tmp_path / name) for name in "ab")
        write_json(other / "split.json", {"class_counts": [9, 8, 7, 6, 5]})
        status, _, log = program(one, other)
        assert status == 0
        assert log[0].startswith("runs learned different classes or images")
        assert [row.label for row in rows_of(read_runs([one, other]), tmp_path)] == ["a", "b"]

    def test_unfinished_runs_of_a_directory_are_left_out(self, caplog, tmp_path):
        write_run(tmp_path / "done")
        (write_run(tmp_path / "begun") / "result.json").unlink()
        with caplog.at_level("INFO"):
            assert [run.path.name for run in read_runs([tmp_path])] == ["done"]
        assert caplog.messages == [f"{tmp_path / 'begun'} is not finished and is left out"]

    def test_short_runs_beside_what_they_chose_are_left_out(self, caplog, tmp_path):
        short = write_run(tmp_path / "trials" / "sam,rho=0.1" / "seed0")
        assert [run.path for run in read_runs([tmp_path])] == [short]
        last = write_run(tmp_path / "sam" / "seed0")
        with caplog.at_level("INFO"):
            assert [run.path for run in read_runs([tmp_path])] == [last]
        assert caplog.messages == [f"left out of {tmp_path}: 1 short run, below trials"]
        assert [run.path for run in read_runs([tmp_path / "trials"])] == [short]

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.lists(st.floats(-10, 10) | st.just(np.nan), min_size=3, max_size=3),
            min_size=1,
            max_size=5,
        )
    )
    def test_averages_leave_out_what_is_unknown(self, values):
        mean, spread = over_seeds(np.array(values))
        for column, (one_mean, one_spread) in enumerate(zip(mean, spread, strict=True)):
            known = [row[column] for row in values if not np.isnan(row[column])]
            if not known:
                assert np.isnan(one_mean)
                continue
            assert one_mean == pytest.approx(np.mean(known), abs=1e-12)
            wanted = np.std(known, ddof=1) if len(known) > 1 else 0
            assert one_spread == pytest.approx(wanted, abs=1e-7)

    def test_curves_are_over_the_steps_that_all_members_have(self, tmp_path):
        first = write_run(tmp_path / "a", accuracy=0.4)
        second = write_run(tmp_path / "b", seed=1, accuracy=0.8)
        lines = (second / "metrics.jsonl").read_text().splitlines()
        (second / "metrics.jsonl").write_text("\n".join(lines[1:]))
        runs = read_runs([first, second])
        found = curve([run.files.evaluations for run in runs], lambda one: one.accuracy)
        assert found is not None
        np.testing.assert_array_equal(found.x, [20, 40])
        np.testing.assert_allclose(found.mean, [0.3, 0.6])
        np.testing.assert_allclose(found.deviation, np.array([0.2, 0.4]) / np.sqrt(2))

    def test_many_classes_are_drawn_in_bins_of_size(self, tmp_path):
        path, counts = write_run(tmp_path / "run"), range(1, 41)
        per_class = [0.5 if count < 20 else 1.0 for count in counts]
        write_json(path / "split.json", {"class_counts": list(counts)})
        change_json(
            path / "model.json", num_classes=40, class_names=[str(count) for count in counts]
        )
        change_json(path / "result.json", per_class=per_class)
        result = (path / "result.json").read_text()
        (path / "metrics.jsonl").write_text(result)
        [part] = by_class(rows_of(read_runs([path]), tmp_path)).subsections
        [picture] = part.pictures
        # The upper twelfth of the logarithmic axis has the classes from 30 images on.
        middle = np.exp(np.log(np.arange(30, 41)).mean())
        assert f"run 100 at {middle:.3g} images and 50 at 1." in picture.alternative
        assert "12 bins" in part.paragraphs[0]

    def test_numbers_beyond_all_measure_are_unknown(self, tmp_path):
        path = write_run(tmp_path / "run")
        change_json(path / "result.json", accuracy=10**400, few=float("inf"), many=1e300)
        [run] = read_runs([path])
        assert all(
            np.isnan(getattr(run.files.result, name)) for name in ("accuracy", "few", "many")
        )

    def test_measurements_are_read_apart_from_evaluations(self, tmp_path):
        [run] = read_runs([write_run(tmp_path / "run", radii=[0.1])])
        assert [one.time for one in run.files.evaluations] == [
            RecordTime(0, s) for s in (10, 20, 40)
        ]
        assert [one.step for one in run.files.measurements] == list(range(5, 41, 5))
        assert np.isnan(run.files.measurements[0].measurement.sharpness["few"])
        assert run.files.measurements[3].measurement.cosine["many_few"] == -0.4


def test_pictures_beside_runs_are_shown_once(program, tmp_path):
    runs = [write_run(tmp_path / "sgd" / f"seed{seed}", seed=seed) for seed in (0, 1)]
    places = [runs[1] / "flatness", tmp_path / "sgd" / "hessian", tmp_path / "landscape"]
    outside = tmp_path.parent / "flatness"
    for place in (*places, outside):
        place.mkdir()
        image.imsave(place / "one.png", np.zeros((2, 2)))
    assert program(tmp_path)[0] == 0
    page = Page((tmp_path / "report.html").read_text())
    found = [one["alt"] for one in page.of("img") if one["src"].startswith("data:image/png;")]
    assert found == [
        "Picture of flatness: sgd/seed1/flatness/one.png",
        "Picture of landscape: landscape/one.png",
        "Picture of hessian: sgd/hessian/one.png",
    ]


class TestRefuses:
    @pytest.fixture
    def refused(self, program, tmp_path):
        """Expects a refusal in one line that has all words, and nothing written."""

        def check(*flags, words):
            before = files_of(tmp_path)
            status, _, lines = program(*flags)
            assert status == 2
            assert len(lines) == 1, lines
            assert lines[0].startswith("error: ")
            for word in words:
                assert word in lines[0]
            assert files_of(tmp_path) == before

        return check

    def test_what_is_no_run(self, refused, tmp_path):
        refused(words=["RUN must be a finished run's directory", "got nothing; give it as in"])
        refused(tmp_path / "nothing", words=["nothing must be a directory"])
        refused(tmp_path, words=["must be a finished run or hold some"])

    def test_unfinished_run(self, refused, tmp_path):
        path = write_run(tmp_path / "run")
        (path / "result.json").unlink()
        refused(path, words=["run must be finished"])

    @pytest.mark.parametrize("name", ["recipe", "result", "split", "model"])
    @pytest.mark.parametrize("contents", [b"{", b"[]", b"\xff\xfe", b"{}"])
    def test_damaged_file(self, refused, tmp_path, name, contents):
        path = write_run(tmp_path / "run")
        (path / f"{name}.json").write_bytes(contents)
        refused(path, words=[f"{name}.json"])

    @pytest.mark.parametrize("contents", [None, b"", b"\xff", b"3\n", b'{"step": 1}\n', b"{\n"])
    def test_damaged_metrics(self, refused, tmp_path, contents):
        path = write_run(tmp_path / "run")
        (path / "metrics.jsonl").unlink()
        if contents is not None:
            (path / "metrics.jsonl").write_bytes(contents)
        refused(path, words=["metrics.jsonl"])

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("recipe", {"seed": "0"}),
            ("recipe", {"seed": -1}),
            ("recipe", {"recipe": None}),
            ("model", {"class_names": ["a", 2]}),
            ("model", {"class_names": "abcde"}),
            ("model", {"image_shape": [8.5]}),
            ("split", {"class_counts": [0, 1, 1, 1, 1]}),
            ("split", {"class_counts": [1e300] * 5}),
            ("result", {"accuracy": "high"}),
            ("result", {"accuracy": True}),
            ("result", {"step": -1}),
            ("result", {"per_class": [0.5] * 4}),
            ("result", {"group_confusion": {"many": {}}}),
            ("result", {"confidence_bins": {"counts": [1], "confidence_sums": [], "correct": [1]}}),
            ("result", {"seconds": None, "code": "abc"}),
        ],
    )
    def test_wrong_values(self, refused, tmp_path, name, values):
        path = write_run(tmp_path / "run")
        change_json(path / f"{name}.json", **values)
        refused(path, words=[f"{name}.json", list(values)[-1]])

    @pytest.mark.parametrize(
        ("parts", "values"),
        [
            ((), {"data": 3}),
            (("stages", 0), {"method": 3}),
            (("stages", 0), {"method": {"rho": 0.1}}),
            (("stages", 0, "method"), {"tail_threshold": None}),
            (("evaluation",), {"many_above": "100"}),
        ],
    )
    def test_wrong_recipe(self, refused, tmp_path, parts, values):
        path = write_run(tmp_path / "run", method=ImbSAM())
        change_recipe(path, *parts, **values)
        refused(path, words=["recipe.json", list(values)[-1]])

    @pytest.mark.parametrize("parts", [("data", "source"), ("network",)])
    def test_data_and_networks_of_the_user_s_own(self, refused, tmp_path, parts):
        path = write_run(tmp_path / "run")
        change_recipe(path, *parts, name="mine")
        words = [
            f"recipe.json must hold a recipe: {'.'.join(parts)} must be a part of jaxlt's, got mine"
        ]
        refused(path, words=words)

    def test_earlier_format(self, refused, tmp_path):
        path = write_run(tmp_path / "run")
        write_json(path / "recipe.json", {"dataset": "digits", "method": "sam", "seed": 0})
        refused(path, words=["recipe.json must have format 2, got 0: another version of jaxlt"])

    def test_another_number_of_classes(self, refused, tmp_path):
        path = write_run(tmp_path / "run", names=["one", "two"])
        refused(path, words=["split.json must have a count for each of the 2 classes"])

    def test_wrong_measurement(self, refused, tmp_path):
        path = write_run(tmp_path / "run")
        wrong = measurement(50, [])
        wrong["measurement"]["perturbation_norm"] = ["0.1"]
        with (path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(wrong) + "\n")
        refused(
            path,
            words=["metrics.jsonl line 4: measurement.perturbation_norm", "a number, got '0.1'"],
        )

    def test_damaged_picture(self, refused, tmp_path):
        path = write_run(tmp_path / "run")
        (path / "hessian").mkdir()
        (path / "hessian" / "x.png").write_bytes(b"no picture")
        refused(path, words=["x.png must be a PNG file"])

    def test_output_that_cannot_be_written(self, refused, tmp_path):
        path = write_run(tmp_path / "run")
        refused(path, "--output", tmp_path, words=["which is a directory"])
        inside = path / "model.json" / "report.html"
        refused(path, "--output", inside, words=["model.json is not a writable directory"])


def test_help_is_light():
    code = (
        "import sys\n"
        "from experiments.report.__main__ import main\n"
        "sys.argv = ['report', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit:\n"
        "    loaded = {name.split('.')[0] for name in sys.modules}\n"
        "    sys.exit(bool(loaded & {'flax', 'matplotlib', 'tensorflow', 'orbax', 'jinja2'}))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "--output" in finished.stdout
