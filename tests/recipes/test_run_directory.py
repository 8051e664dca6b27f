"""A run is bound to what its data hold, and goes on wherever they lie."""

import json
import shutil
import signal
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxlt import UsageError, recipes
from jaxlt.data import Source, long_tailed_split
from jaxlt.data.sources.array_images import ArrayImages
from jaxlt.errors import Interrupted
from jaxlt.files.directory import write_json
from jaxlt.recipes.run_directory import data_identity
from jaxlt.runs.differences import key_but_for_seed

SIZES = {"ant": 6, "bee": 4, "cow": 3}


def write_photos(root, seed=0):
    random = np.random.default_rng(seed)
    for part, sizes in (("train", SIZES), ("test", dict.fromkeys(SIZES, 2))):
        for number, (name, count) in enumerate(sizes.items()):
            (root / part / name).mkdir(parents=True)
            for image in range(count):
                pixels = random.integers(0, 100, (8, 8, 3)) + 50 * number
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{image}.png")
    return root


def recipe_of(source, **data):
    stage = recipes.Stage(
        epochs=2,
        batch_size=8,
        augmentation=recipes.Augmentation(shift="none"),
        method=recipes.SGD(),
    )
    return recipes.Recipe(
        data=recipes.Data(source=source, profile=recipes.Native(), image_size=8, **data),
        network=recipes.Small(architecture="mlp"),
        stages=(stage,),
        evaluation=recipes.Evaluation(epochs=1),
    )


def of_folder(root, **data):
    return recipe_of(recipes.Folder(directory=str(root)), **data)


def of_lists(root, train, test):
    return recipe_of(recipes.Lists(lists=f"{root},{train},{test}"))


def listed(path, root, part):
    files = sorted(root.glob(f"{part}/*/*.png"))
    labels = {name: number for number, name in enumerate(SIZES)}
    lines = [f"{file.relative_to(root)} {labels[file.parent.name]}\n" for file in files]
    path.write_text("".join(lines))
    return path


def contents(directory):
    return {file: file.read_bytes() for file in directory.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder of photos, with list files, and runs on both."""
    place = tmp_path_factory.mktemp("begun")
    root = write_photos(place / "photos")
    lists = [listed(place / f"{part}.txt", root, part) for part in ("train", "test")]
    recipes.train(of_folder(root), place / "run")
    recipes.train(of_lists(root, *lists), place / "list_run")
    return place


def refused(recipe, workdir, match, **options):
    before = contents(workdir)
    with pytest.raises(UsageError, match=match) as error:
        recipes.train(recipe, workdir, **options)
    assert "\n" not in str(error.value)
    assert "put the data back, or give another workdir (--workdir)" in str(error.value)
    assert contents(workdir) == before


def move_to_another_class(root):
    (root / "train/ant/0.png").rename(root / "train/cow/9.png")


def swap_two_classes_images(root):
    # Counts and labels stay as they were.
    (root / "train/ant/5.png").rename(root / "train/bee/8.png")
    (root / "train/bee/0.png").rename(root / "train/ant/8.png")


def swap_contents(root):
    one, other = root / "train/ant/0.png", root / "train/bee/0.png"
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)


def rename_first_class_last(root):
    for part in ("train", "test"):
        (root / part / "ant").rename(root / part / "wasp")


def swap_names_of_classes(root):
    for part in ("train", "test"):
        (root / part / "ant").rename(root / part / "other")
        (root / part / "bee").rename(root / part / "ant")
        (root / part / "other").rename(root / part / "bee")


def remove_a_test_image(root):
    (root / "test/bee/1.png").unlink()


def change_a_test_image(root):
    Image.new("RGB", (8, 8)).save(root / "test/bee/1.png")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (move_to_another_class, r"labels, names, contents of training images are not the"),
        (swap_two_classes_images, r": names, contents of training images are not the same"),
        (swap_contents, r": contents of training images are not the same; put"),
        (rename_first_class_last, r"class names are ant bee cow there and bee cow wasp here"),
        (swap_names_of_classes, r"training images are not the same"),
        (remove_a_test_image, r": evaluated images are 6 there and 5 here; put"),
        (change_a_test_image, r": contents of evaluated images are not the same; put"),
    ],
)
def test_a_run_on_a_folder_refuses_other_data(begun, tmp_path, change, said):
    root = shutil.copytree(begun / "photos", tmp_path / "photos")
    change(root)
    refused(of_folder(root), begun / "run", said)


def test_an_added_image_is_counted(begun, tmp_path):
    root = shutil.copytree(begun / "photos", tmp_path / "photos")
    shutil.copy(root / "train/cow/0.png", root / "train/cow/new.png")
    refused(of_folder(root), begun / "run", "training images are 13 there and 14 here")


def test_labels_swapped_in_a_list_are_other_data(begun, tmp_path):
    lines = (begun / "train.txt").read_text().splitlines()
    swapped = [line[:-1] + {"0": "1", "1": "0"}.get(line[-1], line[-1]) for line in lines]
    (tmp_path / "train.txt").write_text("\n".join(swapped) + "\n")
    recipe = of_lists(begun / "photos", tmp_path / "train.txt", begun / "test.txt")
    # Of all images of a class: its name goes with it, which the test list tells apart.
    refused(recipe, begun / "list_run", "data of run .* class names are ant bee cow there")
    one, other = 0, 6
    lines[one], lines[other] = lines[one][:-1] + "1", lines[other][:-1] + "0"
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    refused(recipe, begun / "list_run", "labels of training images are not the same")


def test_a_stopped_run_refuses_other_data_and_goes_on_with_its_own(tmp_path, monkeypatch, capsys):
    root, workdir = write_photos(tmp_path / "photos"), tmp_path / "run"

    def stop(record):
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        recipes.train(of_folder(root), workdir, callbacks=[stop])
    assert not (workdir / "result.json").exists()
    (root / "test/bee/1.png").rename(tmp_path / "kept.png")
    refused(of_folder(root), workdir, "evaluated images are 6 there and 5 here")
    (tmp_path / "kept.png").rename(root / "test/bee/1.png")
    assert recipes.train(of_folder(root), workdir).result["step"] == 4


def elsewhere(begun, tmp_path, monkeypatch):
    root = begun / "photos"
    (tmp_path / "link").symlink_to(root)
    yield shutil.copytree(root, tmp_path / "deep/er/photos")
    yield tmp_path / "link"
    yield f"{root.parent}//photos/"
    yield f"{root}/train/.."
    monkeypatch.chdir(root)
    yield "."
    monkeypatch.chdir(root.parent)
    yield "photos"


def test_where_a_folder_lies_makes_no_other_run(begun, tmp_path, monkeypatch):
    before = contents(begun / "run")
    for place in elsewhere(begun, tmp_path, monkeypatch):
        recipes.train(of_folder(place), begun / "run")
    assert contents(begun / "run") == before


def test_the_form_of_accents_makes_no_other_run(begun, tmp_path):
    """As an archive or a network drive changes it between systems."""
    roots, names = {}, {"ant": "\u00e9lan", "bee": "f\u00e9e", "cow": "zoo"}
    for form in ("NFC", "NFD"):
        roots[form] = shutil.copytree(begun / "photos", tmp_path / form)
        for path in list(roots[form].glob("*/*")):
            path.rename(path.with_name(normalize(form, names[path.name])))
    run = recipes.train(of_folder(roots["NFC"]), tmp_path / "run").path
    before = contents(run)
    recipes.train(of_folder(roots["NFD"]), run)
    assert contents(run) == before
    other = recipes.train(of_folder(roots["NFD"]), tmp_path / "other").path
    for file in ("recipe.json", "model.json"):
        one, two = (json.loads((path / file).read_text()) for path in (run, other))
        assert one.get("data") == two.get("data")
        assert one.get("class_names") == two.get("class_names")


def test_a_run_of_an_earlier_version_keeps_accents_in_any_form(begun, tmp_path, caplog):
    root = shutil.copytree(begun / "photos", tmp_path / "photos")
    for part in ("train", "test"):
        (root / part / "bee").rename(root / part / "be\u0301e")
    run = recipes.train(of_folder(root), tmp_path / "run").path
    for file in ("recipe.json", "model.json"):
        values = json.loads((run / file).read_text())
        values.get("data", values)["class_names"] = ["ant", "be\u0301e", "cow"]
        for images in ("train", "evaluated") if "data" in values else ():
            values["data"][images]["names"] = "0123456789abcdef"
        write_json(run / file, values)
    before = contents(run)
    recipes.train(of_folder(root), run)
    assert contents(run) == before
    caplog.set_level("INFO")
    recipes.train(of_folder(root).replace(init_from=str(run)), tmp_path / "next")
    assert "3 classes kept" in caplog.text
    assert "new" not in caplog.text.split("3 classes kept")[1].split("\n")[0]


def test_where_lists_and_their_images_lie_makes_no_other_run(begun, tmp_path):
    before = contents(begun / "list_run")
    root = shutil.copytree(begun / "photos", tmp_path / "moved")
    lists = [shutil.copy(begun / f"{part}.txt", tmp_path) for part in ("train", "test")]
    recipes.train(of_lists(root, *lists), begun / "list_run")
    recipes.train(of_lists(f"{root}//", *lists), begun / "list_run")
    assert contents(begun / "list_run") == before


def test_a_copied_split_file_makes_no_other_run(begun, tmp_path):
    split = tmp_path / "split.json"
    recipe = of_folder(begun / "photos", split_file=str(split))
    run = recipes.train(recipe, tmp_path / "run")
    copied = shutil.copy(split, tmp_path / "copied.json")
    recipes.train(of_folder(begun / "photos", split_file=str(copied)), run.path)
    recipes.train(of_folder(begun / "photos", split_file=str(run.path / "split.json")), run.path)


def test_a_split_file_may_lie_in_the_home_directory(begun, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = of_folder(begun / "photos", split_file="~/split.json")
    run = recipes.train(recipe, tmp_path / "run")
    assert (tmp_path / "split.json").read_bytes() == (run.path / "split.json").read_bytes()
    # It is read, not only written: the other selection of a file there rules.
    (tmp_path / "split.json").write_text((tmp_path / "split.json").read_text() + "}")
    with pytest.raises(UsageError, match=r"split file .* must be JSON"):
        recipes.train(recipe, tmp_path / "other")


def test_the_same_data_elsewhere_are_one_row_of_a_report(begun, tmp_path):
    root = shutil.copytree(begun / "photos", tmp_path / "moved")
    moved = recipes.train(of_folder(root), tmp_path / "moved_run", seed=1)
    remove_a_test_image(root)
    other = recipes.train(of_folder(root), tmp_path / "other_run", seed=2)
    keys = [
        key_but_for_seed(json.loads((path / "recipe.json").read_text()))
        for path in (begun / "run", moved.path, other.path)
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_run_of_an_earlier_version_goes_on_with_a_line_in_the_log(begun, tmp_path, caplog):
    workdir = shutil.copytree(begun / "run", tmp_path / "run")
    identity = json.loads((workdir / "recipe.json").read_text())
    del identity["data"], identity["recipe"]["data"]["validation"]
    write_json(workdir / "recipe.json", identity)
    before = contents(workdir)
    with caplog.at_level("INFO"):
        recipes.train(of_folder(begun / "photos"), workdir)
    assert f"run {workdir} is of a version that kept no record of its data" in caplog.text
    assert contents(workdir) == before
    # Their place counts, and the names that model.json has.
    root = shutil.copytree(begun / "photos", tmp_path / "photos")
    with pytest.raises(UsageError, match=r"got another: data.source.directory is"):
        recipes.train(of_folder(root), workdir)
    identity["recipe"]["data"]["source"]["directory"] = str(root)
    write_json(workdir / "recipe.json", identity)
    rename_first_class_last(root)
    refused(of_folder(root), workdir, "class names are ant bee cow there and bee cow wasp here")


def test_how_often_a_begun_run_is_evaluated_may_change(begun, tmp_path):
    whole = recipes.train(of_folder(begun / "photos"), tmp_path / "whole")
    stopped = tmp_path / "stopped"
    rarely = of_folder(begun / "photos").replace(evaluation=recipes.Evaluation(epochs=2))
    steps = []

    def stop(record):
        steps.append(record["step"])
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        recipes.train(of_folder(begun / "photos"), stopped, callbacks=[stop])
    resumed = recipes.train(rarely, stopped)
    assert steps == [2]
    assert [record["step"] for record in resumed.metrics()] == [2, 4]
    assert resumed.metrics() == whole.metrics()


def test_what_decides_the_numbers_may_not_change(begun):
    longer = of_folder(begun / "photos").shortened(3)
    with pytest.raises(UsageError, match=r"epochs is 2 there and 3 here.*--workdir"):
        recipes.train(longer, begun / "run")


def source_of(labels, names):
    pixels = np.arange(len(labels) * 4, dtype=np.uint8).reshape(-1, 2, 2, 1)
    images = ArrayImages(pixels, np.array(labels))
    images.names = names
    return Source("made", ("a", "b", "c"), images, images, mean=(0.5,), std=(0.2,))


def identity_of(source):
    return data_identity(
        recipe_of(recipes.Digits()).data,
        "test",
        source,
        long_tailed_split(source, profile="native"),
    )


@given(
    st.permutations([0, 0, 0, 1, 1, 2]),
    st.lists(st.text("ab/.", max_size=4), min_size=2, max_size=2),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_no_place_changes_the_identity_and_any_swap_of_labels_does(labels, roots, one, other):
    here, there = (
        identity_of(source_of(labels, [f"/{root}/photos/{n % 2}/{n}.png" for n in range(6)]))
        for root in roots
    )
    assert here == there
    swapped = list(labels)
    swapped[one], swapped[other] = labels[other], labels[one]
    names = [f"/photos/{n % 2}/{n}.png" for n in range(6)]
    is_same = identity_of(source_of(swapped, names)) == here
    assert is_same == (labels[one] == labels[other])
