"""Names that people could take for others."""

import pytest

from p2pfed.core.names import deceptive, look_alike


@pytest.mark.parametrize(
    "name", ["cards", "Karten & Zahlungen (Süd)", "Банки", "銀行カード", "한국 은행", "Τράπεζες 2"]
)
def test_honest_names_of_any_script_pass(name):
    assert deceptive(name) == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cards\u202e", "are not seen"),
        ("ca\u200brds", "are not seen"),
        ("cards\u3164", "are not seen"),
        ("cards ", "spaces where none are expected"),
        ("two  spaces", "spaces where none are expected"),
        ("Su\u0308d", "NFKC"),
        ("ｃards", "NFKC"),
        ("c\u0430rds", "mixes letters of several scripts, which may look alike: cyrillic and latin"),
        ("cαrds", "greek and latin"),
    ],
)
def test_what_could_be_taken_for_another_name_is_told(name, said):
    assert said in deceptive(name)


def test_names_that_hardly_differ_are_found():
    assert look_alike(["bank-1", "bank-l", "bank-2", "BANK-I", "Bank-O", "bank-0", "bank-1"]) == [
        ("bank-1", "bank-l", "BANK-I"),
        ("Bank-O", "bank-0"),
    ]
    assert look_alike([f"bank-{i}" for i in range(200)]) == []
