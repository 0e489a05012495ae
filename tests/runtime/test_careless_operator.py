"""What an operator can do to a state directory: `start` ends with a sentence and the right exit code, no node."""

from __future__ import annotations

import base64
import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from p2pfed.config import CsvSource, DataSection, LearningSection, NodeConfig, NodeSection, PeersSection
from p2pfed.core.consortium import SignedManifest
from p2pfed.core.identity import Identity
from p2pfed.core.inputs import Input, TroubleSeen
from p2pfed.core.succession import verify_succession
from p2pfed.errors import LocalFault
from p2pfed.net import tls
from p2pfed.runtime import daemon
from p2pfed.runtime.enrolment import make_keys
from p2pfed.store.credentials import admin_token
from p2pfed.store.sqlite import SqliteStore
from p2pfed.store.state_dir import StateDir
from tests.consortia import consortium, sign


@dataclass
class Bank:
    """One bank that has joined, and has never been started."""

    state: StateDir
    config: NodeConfig


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    state = StateDir(tmp_path / "state").create()
    identity, _ = make_keys(state, "bank-0", 0.0)
    admin_token(state)
    house = consortium(3)
    certificate = base64.b64encode(tls.certificate_of(state.tls)).decode()
    first = replace(house.manifest.members[0], key=identity.public_key.hex(), certificates=(certificate,))
    manifest = replace(house.manifest, members=(first, *house.manifest.members[1:]))
    state.save_manifest(1, sign(manifest, *house.admins[:2]).to_bytes())
    config = NodeConfig(
        version=1,
        node=NodeSection(name="bank-0", state_dir=state.root),
        peers=PeersSection(listen="127.0.0.1:0"),
        data=DataSection(source=CsvSource(kind="csv", path=tmp_path / "p.csv"), label="fraud", split="stratified"),
        learning=LearningSection(rounds=10),
    )
    return Bank(state, config)


def edit_manifest(bank: Bank) -> None:
    path = bank.state.manifest(1)
    path.write_text(path.read_text().replace("pilot", "mine"))


def half_manifest(bank: Bank) -> None:
    path = bank.state.manifest(1)
    path.write_bytes(path.read_bytes()[:300])


def directory_for_manifest(bank: Bank) -> None:
    bank.state.manifest(1).unlink()
    bank.state.manifest(1).mkdir()


def no_manifest(bank: Bank) -> None:
    bank.state.manifest(1).unlink()


def other_banks_key(bank: Bank) -> None:
    bank.state.member_key.write_text(Identity.generate().seed.hex())


def other_certificate(bank: Bank) -> None:
    bank.state.tls.unlink()
    tls.write_pem(bank.state.tls, tls.make_certificate("bank-0"))


def no_certificate(bank: Bank) -> None:
    bank.state.tls.unlink()


def junk_certificate(bank: Bank) -> None:
    bank.state.tls.write_text("junk")


def certificate_without_its_key(bank: Bank) -> None:
    text = bank.state.tls.read_text()
    bank.state.tls.write_text(text[: text.index("-----END CERTIFICATE-----")] + "-----END CERTIFICATE-----\n")


def open_token(bank: Bank) -> None:
    bank.state.admin_token.chmod(0o644)


def other_name(bank: Bank) -> None:
    bank.config = bank.config.model_copy(update={"node": NodeSection(name="bank-9", state_dir=bank.state.root)})


def no_end_of_training(bank: Bank) -> None:
    bank.config = bank.config.model_copy(update={"learning": LearningSection()})


MISTAKES: list[tuple[Callable[[Bank], None], int, str]] = [
    (edit_manifest, 65, r"manifests are not to be trusted: .*0 of 2.*join"),
    (half_manifest, 65, r"manifests are not to be trusted: .*not a manifest.*join"),
    (directory_for_manifest, 77, r"cannot read .*1\.json"),
    (no_manifest, 77, "holds no manifest: join a consortium first"),
    (other_banks_key, 77, "key is not in version 1"),
    (other_certificate, 77, "another certificate than version 1"),
    (no_certificate, 65, r"tls\.pem is missing"),
    (junk_certificate, 65, r"tls\.pem holds no certificate"),
    (certificate_without_its_key, 65, "not a key with its certificate"),
    (open_token, 77, r"chmod 600 .*admin\.token"),
    (other_name, 78, "node.name is 'bank-9'"),
    (no_end_of_training, 78, r"learning.rounds is not set, and version 1 of pilot has no calendar"),
]


@pytest.mark.parametrize(("mistake", "code", "sentence"), MISTAKES, ids=[m[0].__name__ for m in MISTAKES])
def test_a_mistake_in_the_state_directory_stops_the_start(
    bank: Bank, mistake: Callable[[Bank], None], code: int, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    mistake(bank)
    with pytest.raises(LocalFault, match=sentence) as caught:
        daemon.run(bank.config)
    assert caught.value.exit_code == code
    gc.collect()
    assert "Unclosed" not in capfd.readouterr().err


class Following:
    """As much of a driver as taking over manifests needs."""

    def __init__(self) -> None:
        self.told: list[Input] = []

    async def follow(self, successor: SignedManifest) -> None:
        verify_succession(successor.manifest, successor)

    def put(self, given: Input) -> None:
        self.told.append(given)


@pytest.mark.parametrize("mistake", [edit_manifest, half_manifest, directory_for_manifest])
async def test_a_reload_with_a_bad_manifest_file_is_a_problem_of_a_running_node(
    bank: Bank, mistake: Callable[[Bank], None]
) -> None:
    store = SqliteStore(bank.state)
    running = daemon.Daemon(bank.config, bank.state, store, None)
    running._driver = driver = Following()  # type: ignore[assignment]
    mistake(bank)
    await running._take_over_manifests()
    store.close()
    [trouble] = driver.told
    assert isinstance(trouble, TroubleSeen) and trouble.code == "MANIFEST_REFUSED"
