"""Who takes part: everything from the seed, and what daemons of the same consortium would have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from p2pfed.core.contradictions import check_manifest
from p2pfed.core.identity import node_id
from p2pfed.core.joining import declaration
from p2pfed.data.banks import LoadedBanks
from p2pfed.errors import DataError, UsageError
from p2pfed.sim import population
from p2pfed.sim.population import cast, load, notes, populate
from p2pfed.sim.scenario import Scenario, load_scenario, scenario_from


def scenario(nodes: int = 12, **changes: Any) -> Scenario:
    return scenario_from(
        {
            "version": 1,
            "nodes": nodes,
            "rounds": 20,
            "data": {"rows": 12_000, "test_rows": 500},
            "partition": "lognormal:0.5",
            "dial_out": 2,
            **changes,
        }
    )


ODD: dict[str, Any] = {
    "odd": {"bank": "bank-5", "rows": 60},
    "attackers": [{"kind": "signflip", "nodes": ["bank-2"]}, {"kind": "gaussian", "nodes": 7}],
}


@pytest.fixture(scope="module")
def loaded() -> LoadedBanks:
    return load(scenario())


def test_the_same_seed_makes_the_same_population(loaded: LoadedBanks) -> None:
    first, again, other = (populate(scenario(seed=seed), loaded) for seed in (1, 1, 2))
    assert first.manifest == again.manifest
    assert first.roles == again.roles
    assert [i.seed for i in first.identities] == [i.seed for i in again.identities]
    assert not {m.key for m in first.manifest.members} & {m.key for m in other.manifest.members}
    assert first.manifest.consortium != other.manifest.consortium


def test_the_manifest_is_one_that_daemons_would_accept(loaded: LoadedBanks) -> None:
    made = populate(scenario(gossip={"topology": "regular:3", "publish_min_frauds": 0}), loaded)
    manifest = made.manifest
    named = [replace(m, certificates=(f"MAQA{i:04d}",)) for i, m in enumerate(manifest.members)]
    check_manifest(replace(manifest, members=tuple(named)))  # certificates are all it lacks
    assert [node_id(bytes.fromhex(m.key)) for m in manifest.members] == [i.node_id for i in made.identities]
    assert {i for i, m in enumerate(manifest.members) if not m.endpoints} == made.roles.dial_out
    told = [(m.legitimate_per_fraud, m.training_rows) for m in manifest.members]
    assert told == [declaration(*counts) for counts in zip(made.train_rows, made.train_frauds, strict=True)]
    endpoints = [m.endpoints for m in manifest.members if m.endpoints]
    assert len(set(endpoints)) == 10
    assert manifest.gossip.publish_min_frauds == 0
    assert manifest.gossip.topology == "regular:3"
    assert manifest.model.inputs == loaded.contract.width


def test_eleven_thousand_addresses_differ() -> None:
    found = {population._endpoint(i) for i in range(20_000)}
    assert len(found) == 20_000
    assert "10.0.1.0:7443" in found


def test_banks_learn_from_what_they_loaded(loaded: LoadedBanks) -> None:
    made = populate(scenario(seed=4), loaded)
    for i, (bank, rows) in enumerate(zip(made.banks, loaded.banks, strict=True)):
        assert bank.rows.train is rows.train  # class weights leave the rows as they are
        assert bank.seed == 4 + i
        assert 1 <= bank.positive_weight <= 10
        assert (made.train_rows[i], made.train_frauds[i]) == (len(rows.train), rows.train.frauds)


def test_resampled_rows_are_learned_from_and_not_reported(loaded: LoadedBanks) -> None:
    made = populate(scenario(training={"imbalance": "undersample"}), loaded)
    bank = made.banks[int(np.argmax(made.train_frauds))]
    assert bank.rows.train.frauds * 2 == len(bank.rows.train)
    assert max(made.train_rows) > 300


def test_roles_do_not_overlap() -> None:
    for seed in range(20):
        s = scenario(
            seed=seed,
            joiners=[{"nodes": 5, "at": 10}],
            leavers=[{"nodes": 5, "at": 90}, {"nodes": ["bank-1"], "at": 50}],
            stragglers=[{"nodes": 3, "slower": 2}, {"nodes": ["bank-3"], "slower": 5}],
            partitions=[{"groups": [4, ["bank-7"], 6], "start": 0, "end": 9}],
            outages=[{"nodes": 3, "start": 1, "end": 2}],
            churn={"share": 0.5, "mean_up": 9, "mean_down": 9},
            **ODD,
        )
        roles = cast(s)
        assert len(roles.attackers) == 8
        assert roles.attackers[1].kind == "signflip"
        assert 4 not in roles.attackers
        assert len(roles.joiners.keys() | roles.leavers.keys()) == 11
        assert (len(roles.leavers), roles.leavers[0]) == (6, 50)
        assert (len(roles.stragglers), roles.stragglers[2]) == (4, 5)
        assert [len(group) for group in roles.partitions[0]] == [4, 1, 6]
        assert len(set().union(*roles.partitions[0])) == 11
        assert (len(roles.outages[0]), len(roles.churning), len(roles.dial_out)) == (3, 6, 2)


def test_a_share_of_attackers_is_drawn_among_those_who_publish(loaded: LoadedBanks) -> None:
    frauds = [rows.train.frauds for rows in loaded.banks]
    least = sorted(frauds)[4]
    publishers = {i for i, count in enumerate(frauds) if count >= least}
    drawn = set()
    for seed in range(8):
        attackers = [{"kind": "alie", "share": 0.3}, {"kind": "fraudblind", "nodes": ["bank-1"]}]
        made = populate(scenario(seed=seed, gossip={"publish_min_frauds": least}, attackers=attackers), loaded)
        chosen = [i for i, entry in made.roles.attackers.items() if entry.share]
        assert len(chosen) == round(0.3 * len(publishers)) and publishers.issuperset(chosen) and 0 not in chosen
        drawn |= set(chosen)
        assert made.banks[0].rows.train.frauds == 0 < made.train_frauds[0]
    assert len(drawn) > 4


def test_a_share_that_is_nobody_or_too_many_is_said(loaded: LoadedBanks) -> None:
    with pytest.raises(DataError, match=r"attackers\.0\.share: 0\.01 of the \d+ banks that publish is nobody"):
        populate(scenario(attackers=[{"kind": "alie", "share": 0.01}]), loaded)
    with pytest.raises(DataError, match=r"attackers\.1\.share: 8 attackers, but only 2 banks that publish are left"):
        cast(scenario(attackers=[{"kind": "alie", "share": 0.8}] * 2), range(10))


def test_a_straggler_more_changes_no_attacker() -> None:
    plain, slow = (cast(scenario(seed=3, stragglers=s, **ODD)) for s in ([], [{"nodes": 4, "slower": 2}]))
    assert plain.attackers.keys() == slow.attackers.keys()


def test_the_seed_draws_the_roles() -> None:
    drawn = {tuple(cast(scenario(seed=seed, **ODD)).attackers) for seed in range(10)}
    assert len(drawn) > 5


def test_the_odd_bank_is_small(loaded: LoadedBanks) -> None:
    odd = load(scenario(**ODD)).banks[4]
    assert len(odd.train) + len(odd.validation) + len(odd.own_test) == 60
    assert len(loaded.banks[4].train) > 60


def test_payments_stay_at_the_banks_they_were_made_for() -> None:
    at_home = load(scenario(4, partition=None, min_rows=100, data={"rows": 12_000}))
    assert len(at_home.banks) == 4
    assert len({len(bank.train) for bank in at_home.banks}) == 4
    assert "bank" not in [c.name for c in at_home.contract.columns]
    by_channel = load(scenario(3, partition="by:channel", min_rows=100, data={"rows": 12_000}))
    assert "channel" not in [c.name for c in by_channel.contract.columns]


def test_a_file_is_read(tmp_path: Any) -> None:
    from p2pfed.data import synthetic

    synthetic.generate(9000, 3, 0).to_csv(tmp_path / "p.csv", index=False)
    data = {"file": tmp_path / "p.csv", "label": "fraud", "drop": ["bank", *synthetic.IDENTIFIERS, "event_time"]}
    read = load(scenario(5, partition="iid", data=data))
    assert sum(len(b.train) + len(b.validation) + len(b.own_test) for b in read.banks) == 6300
    with pytest.raises(DataError, match=r"6,300 rows \(of 9,000, .*\) give 21 banks of at least 300 rows, not 30"):
        load(scenario(30, data=data))


def test_nothing_is_loaded_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(population, "available_memory", lambda: 2**30)
    monkeypatch.setattr(population, "generated_payments", None)
    with pytest.raises(UsageError, match="nodes would fit"):
        load(scenario(11_000, data={"rows": 300_000}, min_rows=10))


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("absent.csv", r"s\.yaml:4:14: data\.file: .*absent\.csv does not exist$"),
        ("folder.csv", r"s\.yaml:4:14: data\.file: .*folder\.csv is a directory, not a file$"),
        ("rows.csv", r"s\.yaml:4:14: data\.file: .*rows\.csv has no column 'is_fraud'; it has a, b$"),
        ("leaky.csv", r"s\.yaml:4:1: data: .*amount"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_at_its_line(tmp_path: Path, file: str, said: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    lines = [f"{i * 0.7:.1f},{i % 10 // 9},{i % 10 // 9}" for i in range(1000)]
    (tmp_path / "leaky.csv").write_text("\n".join(["size,amount,is_fraud", *lines]))
    written = f"version: 1\nnodes: 2\nrounds: 3\ndata: {{file: {file}, split: stratified}}\n"
    (tmp_path / "s.yaml").write_text(written)
    with pytest.raises(DataError, match=said):
        load(load_scenario(tmp_path / "s.yaml"))


def written(folder: Path, frauds: slice, **model: str) -> Scenario:
    """1,000 payments, an hour apart, of which each tenth of `frauds` is fraud; some rows cannot be used."""
    noise = np.random.default_rng(0).normal(size=(1000, 2))
    frame = pd.DataFrame(noise, columns=["a", "b"]).assign(at=np.arange(1000) * 3600.0, is_fraud=0.0)
    frame.loc[frauds.start : frauds.stop : 10, "is_fraud"] = 1
    frame.loc[[300, 310], "at"] = np.nan
    frame.loc[[400, 410, 420], "is_fraud"] = np.nan
    pd.concat([frame, frame[:5]]).to_csv(folder / "rows.csv", index=False)
    lines = ["version: 1", "nodes: 2", "rounds: 3", "data: {file: rows.csv, time: at}", f"model: {model}"]
    (folder / "s.yaml").write_text("\n".join(lines))
    return load_scenario(folder / "s.yaml")


def test_what_was_left_out_is_told(tmp_path: Path) -> None:
    found = load(written(tmp_path, slice(500, 999)))
    assert found.dropped == {"exact duplicate": 5, "no event_time": 2, "no label": 3}
    assert notes(found) == ["rows left out: exact duplicate 5, no event_time 2, no label 3"]


def test_an_mlp_without_fraud_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s\.yaml:4:1: data\.label: no bank has a fraud to train on; take another"):
        load(written(tmp_path, slice(900, 950)))
    with pytest.raises(DataError, match=r"data\.label: the pooled test has no fraud, so that no model"):
        load(written(tmp_path, slice(10, 90)))


def test_an_autoencoder_trains_without_fraud_and_says_what_cannot_be_measured(tmp_path: Path) -> None:
    found = load(written(tmp_path, slice(2000, 2000), kind="autoencoder"))
    assert notes(found)[-1] == "the pooled test has no fraud: neither AUPRC nor recall can be measured"
