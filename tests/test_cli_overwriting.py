"""What a command would write over: said with exit code 2 and the file's name, before anything is done."""

import pandas as pd


def test_payments_are_written_over_only_with_force(tmp_path, said, refused):
    made, folder = tmp_path / "payments.csv", tmp_path / "banks"
    made.write_text("a bank's own payments")
    make = ("data", "make", made, "--rows", 1500, "--banks", 2, "--days", 30)
    code, error = refused(*make)
    assert code == 2 and f"{made} exists" in error and "--force" in error
    assert made.read_text() == "a bank's own payments"
    said(*make, "--force")
    folder.mkdir()
    (second := folder / "bank-2.parquet").write_text("a bank's own payments")
    deal = ("data", "partition", made, "--label", "fraud", "--banks", 2, "--how", "iid", "-o", folder)
    code, error = refused(*deal)
    assert code == 2 and f"{second} exists" in error and "--force" in error
    assert [path.name for path in folder.iterdir()] == ["bank-2.parquet"]
    said(*deal, "--force")
    assert len(pd.read_parquet(second)) > 0


def test_an_admins_keys_are_never_replaced(tmp_path, said, refused):
    said("consortium", "key", "alice", "--folder", tmp_path)
    secret, public = tmp_path / "alice.key", tmp_path / "alice.pub"
    for kept, gone in ((secret, public), (public, secret)):
        before, aside = kept.read_bytes(), gone.rename(tmp_path / "aside")
        code, error = refused("consortium", "key", "alice", "--folder", tmp_path)
        assert code == 2 and f"{kept} exists" in error
        assert kept.read_bytes() == before and not gone.exists()
        aside.rename(gone)
