import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlt.errors import UsageError
from jaxlt.models.clip.prompts import names_in_words, read_names

# As in iNaturalist 2018: labels are the numbers of categories, which are not sorted by name.
CATEGORIES = {
    "0": "Vulpes vulpes",
    "1": "Acer rubrum",
    "2": "Ursus americanus",
    "3": "Bombus impatiens",
}
NUMBERS = tuple(CATEGORIES)
NAMES = tuple(CATEGORIES.values())


class TestByLabel:
    @settings(max_examples=30)
    @given(order=st.permutations(NUMBERS))
    def test_go_by_what_the_source_calls_a_class_not_by_their_order(self, tmp_path_factory, order):
        file = tmp_path_factory.mktemp("names") / "names.json"
        file.write_text(json.dumps({number: CATEGORIES[number] for number in order}))
        assert names_in_words(NUMBERS, file) == NAMES
        assert names_in_words(order, file) == tuple(CATEGORIES[number] for number in order)

    def test_must_be_there_for_each_class(self, tmp_path):
        file = tmp_path / "names.json"
        file.write_text(json.dumps(CATEGORIES))
        with pytest.raises(UsageError, match="must have a name for class '9' of label 4"):
            names_in_words((*NUMBERS, "9"), file)


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("names.txt", "".join(f"{key} {value}\n" for key, value in CATEGORIES.items())),
            ("names.tsv", "\n".join(f"{key}\t{value}" for key, value in CATEGORIES.items())),
            ("names.txt", "\ufeff" + "".join(f"{k} {v}\r\n" for k, v in CATEGORIES.items())),
            ("names.json", json.dumps(CATEGORIES)),
            ("names.json", json.dumps([{"id": int(k), "name": v} for k, v in CATEGORIES.items()])),
            (
                "train2018.json",
                json.dumps({"categories": [{"name": v, "id": k} for k, v in CATEGORIES.items()]}),
            ),
        ],
    )
    def test_forms(self, tmp_path, name, text):
        (tmp_path / name).write_text(text)
        assert read_names(tmp_path / name) == CATEGORIES
        assert names_in_words(NUMBERS, tmp_path / name) == NAMES

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("names.txt", "0 fox\n1\n", "must have a class and its name on each line"),
            ("names.txt", "0 fox\n0 wolf\n", "must name each class once, got '0' twice"),
            ("names.json", "{", "must have a class and its name on each line"),
            ("names.json", "[1]", "must have a class and its name on each line"),
            ("names.json", '{"0": ["n01", "fox"]}', "must have a class and its name"),
            ("names.json", '{"0": " "}', "must have a class and its name"),
            ("names.json", '{"0": "fox", "0": "wolf"}', "it has '0' twice in one object"),
        ],
    )
    def test_others_are_refused(self, tmp_path, name, text, message):
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match=message):
            read_names(tmp_path / name)

    def test_blanks_in_the_names_of_classes_need_tabs(self, tmp_path):
        (tmp_path / "names.txt").write_text("polar bear\tUrsus maritimus\nfox Vulpes vulpes\n")
        names = {"polar bear": "Ursus maritimus", "fox": "Vulpes vulpes"}
        assert read_names(tmp_path / "names.txt") == names

    def test_of_other_classes_are_refused(self, tmp_path):
        (tmp_path / "names.txt").write_text("0 fox\n")
        with pytest.raises(
            UsageError, match=r"names.txt must have a name for class '1' of label 1"
        ):
            names_in_words(("0", "1"), tmp_path / "names.txt")

    def test_missing_ones_are_refused(self, tmp_path):
        with pytest.raises(UsageError, match=r"class_names .*no.txt must be a readable file"):
            read_names(tmp_path / "no.txt")


def test_words_of_the_source_itself():
    names = ("aquarium_fish", "apartment_building/outdoor")
    assert names_in_words(names) == ("aquarium fish", "apartment building outdoor")


@pytest.mark.parametrize("number", ["7", "n01440764"])
def test_numbers_are_no_words(number):
    with pytest.raises(
        UsageError, match=f"class_names must be a file .* got none for class '{number}'"
    ):
        names_in_words(("fish", number))
