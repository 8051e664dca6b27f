"""What a report says first: best rows, paired differences, their intervals."""

import numpy as np
import pytest
from scipy import stats
from small_runs import run_program
from written_runs import change_json, change_recipe, write_json, write_run

from experiments.report import __main__ as report
from experiments.report.rows import read_runs, rows_of
from experiments.report.summary import all_sentences, bootstrap, paired_differences
from jaxlt.recipes import SAM, FocalSAM


def rows_in(place):
    return rows_of(read_runs([place]), place)


def write_rows(place, **accuracies):
    """Writes runs of SGD, SAM and Focal-SAM, of seeds from 0 on with these accuracies of all."""
    methods = {"sgd": None, "sam": SAM(), "focal_sam": FocalSAM()}
    for name, of_seeds in accuracies.items():
        for seed, accuracy in enumerate(of_seeds):
            path = place / name / f"seed{seed}"
            write_run(path, seed=seed, method=methods[name], accuracy=accuracy)
            change_json(path / "result.json", balanced_accuracy=accuracy)
    return rows_in(place)


@pytest.mark.parametrize("number", [2, 3, 5, 8])
def test_interval_is_scipy_s(number):
    differences = np.random.default_rng(number).normal(0.5, 1.0, number)
    found = bootstrap(differences)
    wanted = stats.bootstrap(
        (differences,), np.mean, method="percentile", n_resamples=40_000, rng=1
    ).confidence_interval
    assert found.number == number
    assert found.mean == pytest.approx(differences.mean())
    # Two draws of so many means differ by their noise.
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.06)


def test_interval_is_the_same_twice():
    differences = np.array([0.1, 0.4, -0.2])
    assert bootstrap(differences) == bootstrap(differences)


def test_differences_are_paired_by_seed(tmp_path):
    write_rows(tmp_path, sgd=[0.5, 0.6, 0.7], sam=[0.6])
    write_run(tmp_path / "sam" / "seed2", seed=2, method=SAM(), accuracy=0.9)
    write_run(tmp_path / "sam" / "seed9", seed=9, method=SAM(), accuracy=0.1)
    sgd, sam = rows_in(tmp_path)
    np.testing.assert_allclose(paired_differences(sam, sgd, "accuracy"), [0.1, 0.2])


def test_says_what_is_more_than_chance(tmp_path):
    # Seeds vary by far more than the methods differ, which is seen where they are paired.
    seeds = np.array([0.5, 0.7, 0.6, 0.8, 0.55, 0.65])
    gains = np.array([0.01, 0.02, 0.03, 0.02, 0.01, 0.03])
    rows = write_rows(tmp_path, sgd=seeds, sam=seeds + 0.001, focal_sam=seeds + gains)
    few, everything, caution = all_sentences(rows)
    assert few.startswith("Focal-SAM is best on few-shot classes: 35.3 %, 2.0 points over SGD ")
    assert "2.0 points over SGD (95 % interval 1.3 to 2.7 over 6 seeds: more than chance)" in few
    assert "1.9 points over SAM" in few
    assert everything.startswith("Focal-SAM is best on all images: 65.3 %, 2.0 points over SGD ")
    assert "on test images" in caution
    assert "flatters" in caution


def test_says_what_may_be_chance(tmp_path):
    rows = write_rows(tmp_path, sgd=[0.5, 0.7, 0.6], sam=[0.6, 0.66, 0.61])
    _, everything, caution = all_sentences(rows)
    # Differences of 10, -4 and 1 points; 3 of 27 resamples in all are the ends.
    assert everything == (
        "SAM is best on all images: 62.3 %, 2.3 points over SGD (95 % interval -4.0 to 10.0 over "
        "3 seeds: it may be chance)."
    )
    assert "flatters" not in caution


def test_few_seeds_cannot_rule_out_chance(tmp_path):
    rows = write_rows(tmp_path, sgd=[0.5, 0.7, 0.6], sam=[0.6, 0.8, 0.7])
    _, everything, caution = all_sentences(rows)
    assert "10.0 to 10.0 over 3 seeds: too few to rule out chance" in everything
    assert "3 differences have the same sign by chance alone once in 4 times" in caution


def test_nothing_follows_from_one_seed(tmp_path):
    _, everything, _ = all_sentences(write_rows(tmp_path, sgd=[0.5], sam=[0.6]))
    assert everything == (
        "SAM is best on all images: 60.0 %, 10.0 points over SGD, with one seed that both have, "
        "from which nothing follows about chance."
    )


def test_sgd_is_compared_with_the_next(tmp_path):
    _, everything, _ = all_sentences(write_rows(tmp_path, sam=[0.5], focal_sam=[0.4], sgd=[0.6]))
    assert everything.startswith("SGD is best on all images: 60.0 %, 10.0 points over SAM, with")


def test_one_row_has_nothing_beside_it(tmp_path):
    assert all_sentences(write_rows(tmp_path, sam=[0.5])) == [
        "SAM: 20.0 % on few-shot classes.",
        "SAM: 50.0 % on all images.",
        "There is no other row to compare it with.",
    ]


def test_classes_are_weighed_alike_where_that_differs(tmp_path):
    rows = write_rows(tmp_path, sgd=[0.5], sam=[0.6])
    change_json(tmp_path / "sgd" / "seed0" / "result.json", balanced_accuracy=0.7)
    rows = rows_in(tmp_path)
    sentences = all_sentences(rows)
    assert sentences[1].startswith("SAM is best on all images: 60.0 %")
    assert sentences[2].startswith("SGD is best on all classes, each of which counts the same: 70")


def test_without_few_shot_classes(tmp_path):
    write_rows(tmp_path, sgd=[0.5], sam=[0.6])
    for name in ("sgd", "sam"):
        change_json(tmp_path / name / "seed0" / "result.json", few=None)
    sentences = all_sentences(rows_in(tmp_path))
    assert sentences[0] == ("Nothing is known of few-shot classes: no row has an accuracy on them.")


def test_rows_of_other_data_or_images_are_not_compared(tmp_path):
    write_rows(tmp_path, sgd=[0.5], sam=[0.6], focal_sam=[0.7])
    change_recipe(tmp_path / "sam" / "seed0", "data", validation_per_class=2)
    split = tmp_path / "focal_sam" / "seed0" / "split.json"
    write_json(split, {"class_counts": [9, 8, 7, 6, 5]})
    sentences = all_sentences(rows_in(tmp_path))
    assert not any("best" in sentence for sentence in sentences)
    assert "digits, held-out images: SAM: 60.0 % on all images." in sentences


def test_is_printed(monkeypatch, capfd, tmp_path):
    rows = write_rows(tmp_path, sgd=[0.5], sam=[0.6])
    status, printed, _ = run_program(monkeypatch, capfd, report, tmp_path)
    assert (status, printed) == (0, all_sentences(rows))
