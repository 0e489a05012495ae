"""`p2pfed evidence`: what a node knows of equivocations, and proofs as files that need no daemon."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from p2pfed.api.schemas import EvidenceRow
from p2pfed.cli import run
from p2pfed.core import evidence, wire
from p2pfed.core.consortium import Manifest
from p2pfed.core.messages import Equivocation
from p2pfed.store.state_dir import StateDir
from tests.api.conftest import Admin
from tests.consortia import consortium, next_version, sign
from tests.test_cli_daemon import CONFIG

HOUSE = consortium()


def lie(seq: int, liar: int = 0, manifest: Manifest = HOUSE.manifest) -> Equivocation:
    size = manifest.model.schema().size
    one, other = (
        wire.seal_update(
            HOUSE.members[liar], manifest=manifest, instance="ab", seq=seq, previous="", round=seq, rows=8,
            vector=np.full(size, value, np.float32),
        )
        for value in (1, 2)
    )  # fmt: skip
    proof = evidence.contradiction(one.head, other.head)
    assert proof is not None
    return proof


PROOF = lie(7)
NAME = HOUSE.manifest.members[0].name


def row(proof: Equivocation, standing: str = "proven") -> EvidenceRow:
    document = json.loads(evidence.encode_proof(proof))
    return EvidenceRow(
        proof=proof.digest, member=proof.member, name=NAME, seq=proof.seq, standing=standing, document=document
    )


@pytest.fixture
async def admin(tmp_path):
    running = Admin(tmp_path)
    running.node.proofs += [row(PROOF), row(lie(8), "cleared")]
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def p2pfed(tmp_path, capsys):
    (tmp_path / "node.yaml").write_text(CONFIG + "  split: stratified\n")

    async def call(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(run, ["evidence", *arguments, "--config", str(tmp_path / "node.yaml")])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "proof.json"
    path.write_bytes(evidence.encode_proof(PROOF))
    return path


@pytest.fixture
def manifest(tmp_path) -> str:
    path = tmp_path / "manifest-1.json"
    path.write_bytes(HOUSE.signed(0, 1).to_bytes())
    return str(path)


# --- with a daemon ----------------------------------------------------------------------------------------------------


async def test_list(admin, p2pfed):
    code, out, _ = await p2pfed("list")
    assert code == 0
    first, *rows, last = (line.split() for line in out.splitlines())
    assert first == ["PROOF", "MEMBER", "ID", "UPDATE", "STANDING"] and last == ["2", "proofs"]
    assert rows[0] == [PROOF.digest[:12], NAME, PROOF.member[:7], "7", "proven"] and rows[1][-1] == "cleared"
    code, out, _ = await p2pfed("list", "--json")
    assert code == 0 and [r["seq"] for r in json.loads(out)] == [7, 8]


async def test_list_of_a_node_that_knows_none(admin, p2pfed):
    admin.node.proofs.clear()
    assert await p2pfed("list") == (0, "0 proofs\n", "")


async def test_show_tells_where_the_statements_differ(admin, p2pfed):
    code, out, _ = await p2pfed("show", PROOF.digest[:6])
    assert code == 0
    assert f"{NAME} ({PROOF.member[:7]}) signed two different updates with sequence number 7; its models are not" in out
    differs, same = out.split("SAME IN BOTH")
    assert "payload_sha256" in differs and "payload_sha256" not in same and "consortium" in same
    code, out, _ = await p2pfed("show", PROOF.digest, "--json")
    assert json.loads(out)["document"]["statements"][0]["statement"]["seq"] == 7


async def test_what_begins_no_proof_or_several_is_a_usage_error(admin, p2pfed):
    code, _, err = await p2pfed("show", "zz")
    assert code == 2 and "no proof of this node begins with 'zz'" in err
    code, _, err = await p2pfed("export", "")
    assert code == 2 and "2 proofs of this node begin" in err


async def test_what_is_exported_verifies_elsewhere(admin, p2pfed, tmp_path, manifest):
    out = tmp_path / "out.json"
    code, said, _ = await p2pfed("export", PROOF.digest, "--out", str(out))
    assert code == 0 and str(out) in said
    assert out.read_bytes() == evidence.encode_proof(PROOF) + b"\n"
    assert (await p2pfed("export", PROOF.digest, "--out", str(out)))[0] == 0, "the same again"
    out.write_bytes(b"notes")
    assert (await p2pfed("export", PROOF.digest, "--out", str(out)))[0] == 2
    assert (await p2pfed("export", PROOF.digest, "--out", str(out), "--force"))[0] == 0
    code, said, _ = await p2pfed("verify", str(out), "--manifest", manifest)
    assert code == 0 and f"{NAME} ({PROOF.member[:7]}) signed two different updates with sequence number 7" in said


# --- without ----------------------------------------------------------------------------------------------------------


async def test_without_a_daemon_only_verify_works(p2pfed, file, manifest):
    assert (await p2pfed("list"))[0] == 69
    code, out, _ = await p2pfed("verify", str(file), "--manifest", manifest, "--json")
    assert code == 0
    expected = {"valid": True, "proof": PROOF.digest, "member": PROOF.member, "name": NAME, "seq": 7}
    assert json.loads(out) == expected


async def test_verify_by_the_manifests_of_the_state_directory_old_ones_too(p2pfed, file, tmp_path):
    code, _, err = await p2pfed("verify", str(file))
    assert code == 77 and "name one with --manifest" in err
    state = StateDir(tmp_path).create()
    state.save_manifest(1, HOUSE.signed(0, 1).to_bytes())
    expelled = sign(next_version(HOUSE.manifest, members=HOUSE.manifest.members[1:]), *HOUSE.admins[:2])
    state.save_manifest(2, expelled.to_bytes())
    code, out, _ = await p2pfed("verify", str(file))
    assert code == 0 and PROOF.digest in out


@pytest.mark.parametrize("place", [0, 40, 500, -2])
async def test_an_altered_file_proves_nothing(p2pfed, file, manifest, place):
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    code, out, err = await p2pfed("verify", str(file), "--manifest", manifest)
    assert code in (1, 65) and out == "" and "proves nothing" in err and "Traceback" not in err


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 10, b"{}", b"[]", b"[" * 10_000, b"x" * 10_000_000]
    + [
        evidence.encode_proof(PROOF).replace(b'"seq":7', b'"seq":' + seq)
        for seq in (b"-7", b"7.5", b"9" * 400, b"null")
    ]
    + [evidence.encode_proof(PROOF).replace(b'"sender"', b'"send\\ud800r"'), evidence.encode_proof(PROOF)[:-1]],
)
async def test_whatever_is_no_proof_is_said_in_a_sentence(p2pfed, file, manifest, content):
    file.write_bytes(content)
    code, _, err = await p2pfed("verify", str(file), "--manifest", manifest)
    assert code == 65 and f"{file} proves nothing" in err and len(err) < 500


async def test_a_proof_of_another_consortium_or_of_a_stranger_proves_nothing_here(p2pfed, file, manifest):
    elsewhere = lie(7, manifest=replace(HOUSE.manifest, consortium="ff" * 16))
    file.write_bytes(evidence.encode_proof(elsewhere))
    code, _, err = await p2pfed("verify", str(file), "--manifest", manifest)
    assert code == 1 and "another consortium" in err


async def test_verify_needs_a_file_and_a_manifest_that_enough_admins_signed(p2pfed, file, tmp_path, manifest):
    assert (await p2pfed("verify", str(tmp_path / "none"), "--manifest", manifest))[0] == 2
    draft = tmp_path / "draft.json"
    draft.write_bytes(HOUSE.signed(0).to_bytes())
    code, _, err = await p2pfed("verify", str(file), "--manifest", str(draft))
    assert code == 78 and "signed by 1 of 2" in err
