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


def test_an_admins_key_goes_neither_through_a_link_nor_to_who_made_a_file_before(tmp_path, said, refused):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "alice.key.new").symlink_to(tmp_path / "precious")
    (tmp_path / "alice.pub").symlink_to(tmp_path / "nowhere")
    assert refused("consortium", "key", "alice", "--folder", tmp_path)[0] == 2
    assert not (tmp_path / "nowhere").exists() and not (tmp_path / "alice.key").exists()
    (tmp_path / "alice.pub").unlink()
    said("consortium", "key", "alice", "--folder", tmp_path)
    assert (tmp_path / "precious").read_text() == "precious"
    (tmp_path / "bob.key.new").touch(0o666)
    with (tmp_path / "bob.key.new").open() as held:
        said("consortium", "key", "bob", "--folder", tmp_path)
        assert held.read() == ""
    assert (tmp_path / "bob.key").stat().st_mode & 0o777 == 0o600
