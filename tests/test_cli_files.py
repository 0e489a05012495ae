"""Files as banks have them, on the command line."""

from tests.data.banks import payments


def test_a_file_with_semicolons_and_decimal_commas(tmp_path, said, refused):
    rows = tmp_path / "rows.csv"
    payments(700, 9).to_csv(rows, index=False, sep=";", decimal=",")
    assert "several between ';'" in refused("data", "describe", rows, "--label", "fraud")[1]
    named = ("--delimiter", ";", "--decimal", ",")
    assert said("data", "describe", rows, "--label", "fraud", *named).startswith("700 payments")
    said("data", "partition", rows, "--label", "fraud", "--banks", 2, *named, "-o", tmp_path / "banks")
    code, error = refused("data", "describe", rows, "--label", "fraud", "--decimal", ",")
    assert code == 2 and "a number would be two columns" in error
    assert refused("data", "describe", "-c", tmp_path / "no.yaml", *named)[0] == 2
