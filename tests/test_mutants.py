"""The faults of `tests/mutants.py` still fit the code and the tests, and what is said of them."""

import collections
import re
from pathlib import Path

import pytest
from mutants import FAULTS, Copy, Outcome, faulty, try_all

TESTS = Path(__file__).parent
PASSED, FAILED, NOT_COLLECTED = 0, 1, 2


def text_of(file):
    return (TESTS / file).read_text() if file.endswith(".py") else ""


def test_faults_fit_the_code_and_the_tests():
    for fault in FAULTS:
        changed = faulty(fault, (TESTS.parent / "jaxlt" / fault.file).read_text())
        compile(changed, f"{fault.file}, {fault.name}", "exec")
        file, _, name = fault.test.partition("::")
        assert (TESTS / file).exists(), fault.test
        assert not re.search("^pytestmark.*soak", text_of(file), re.M), fault.test
        for part in filter(None, name.split("::")):
            found = re.search(rf"^((?: *@.*\n)*) *(?:def|class) {part}\b", text_of(file), re.M)
            assert found, fault.test
            assert "mark.soak" not in found[1], fault.test
    assert max(collections.Counter(fault.name for fault in FAULTS).values()) == 1


@pytest.mark.parametrize("whole", ["nothing of it", "a + a"])
def test_a_fault_has_one_place(whole):
    with pytest.raises(ValueError, match="must hold 'a' once"):
        faulty(FAULTS[0]._replace(before="a"), whole)


class Canned(Copy):
    """In place of a copy, in which tests would run."""

    def __init__(self, **statuses):
        self._statuses = statuses

    def outcome(self, test, fault=None):
        status = self._statuses[test if fault is None else fault.name]
        if status == FAILED:
            return Outcome(status, f"{test}::test_it[a|b]", 1.25, 3.0)
        return Outcome(status, "1 ran", 0.0, 2.0)


def test_a_table_says_what_catches_each_fault(capsys):
    caught, survives, breaks = (
        FAULTS[0]._replace(name=name, file="file.py", test="whole")
        for name in ("caught", "survives", "breaks")
    )
    statuses = {"whole": PASSED, "caught": FAILED, "survives": PASSED, "breaks": NOT_COLLECTED}
    assert try_all([caught], [Canned(**statuses)]) == ""
    wrong = try_all([caught, survives, breaks], [Canned(**statuses)] * 2)
    assert wrong == "faults must be caught, got survives (nothing), breaks (broken: 1 ran)"
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "| caught | file.py | whole::test_it[a\\|b] | 1.2 | 3 |",
        "| survives | file.py | nothing | 0.0 | 2 |",
        "| breaks | file.py | broken: 1 ran | 0.0 | 2 |",
    ]


def test_tests_that_fail_without_a_fault_tell_nothing():
    whole = FAULTS[0]._replace(test="whole")
    wrong = try_all([whole], [Canned(whole=FAILED)])
    assert wrong == "tests must pass without a fault, got failures of whole"
