"""What loading the rows found, said in one line."""

import subprocess
import sys

from p2pfed.data.report import one_line

CLEAN = {
    "rows_read": 12_000, "train_rows": 8_400, "train_frauds": 84, "dropped": {}, "unknown_levels": {}, "imputed": {},
    "notes": [],
}  # fmt: skip


def test_rows_without_anything_to_say_about_them():
    assert one_line(CLEAN) == "8,400 training rows with 84 frauds; 12,000 rows read"


def test_everything_that_was_found_in_one_line():
    found = CLEAN | {
        "dropped": {"no label": 1_200, "not mature": 7},
        "unknown_levels": {"channel": 3},
        "imputed": {"amount": 9},
        "notes": ["no own_test row is fraud"],
    }
    assert one_line(found) == (
        "8,400 training rows with 84 frauds; 12,000 rows read; left out: no label 1,200, not mature 7; "
        "levels unknown to the contract: channel 3; empty values filled in: amount 9; no own_test row is fraud"
    )


def test_the_daemon_can_say_it_without_pandas():
    code = "import sys, p2pfed.data.report; sys.exit('pandas' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
