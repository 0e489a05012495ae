"""The closing table says what learning together gave."""

from dataclasses import replace

from p2pfed.experiment.report import baseline_lines, closing_table, leak_lines, quarantine_lines
from p2pfed.results import Alone, Baselines, NodeRun, Quarantine, RunFile


def measures(auprc):
    return {"auprc": auprc, "auroc": 0.9, "f1": 0.5, "recall_at_fpr_0.001": None}


def node(name, together, alone):
    test = None if alone is None else Alone(measures(alone), None)
    return NodeRun(name, name, "honest", 1000, 9, 20, measures(together), None, test, 1_500_000, 20, 70_000_000)


RUN = RunFile(
    "cluster", 0, 20, 33.3, {}, {}, (node("bank-1", 0.8, 0.5), node("bank-2", 0.7, 0.9)),
    Baselines(measures(0.85), measures(0.74)),
)  # fmt: skip


def printed(run):
    return [line.split() for line in closing_table(run).splitlines()]


def test_it_fits_ninety_columns():
    big = replace(node("bank-10", 0.8, 0.5), train_rows=1_234_567, train_frauds=12_345, bytes_sent=123_456_789)
    assert max(map(len, closing_table(replace(RUN, nodes=(big,))).splitlines())) <= 90


def test_gain_mean_and_worst():
    rows = {line[0]: line for line in printed(RUN) if line}
    assert rows["bank-1"][3:6] == ["0.500", "0.800", "+0.300"]
    assert rows["bank-2"][3:6] == ["0.900", "0.700", "-0.200"]
    assert rows["mean"][1:] == ["0.700", "0.750", "+0.050"]
    assert rows["worst"][1:] == ["0.500", "0.700", "+0.200"]


def test_without_baselines_dashes_stand():
    bare = replace(RUN, nodes=(node("bank-1", 0.8, None),), baselines=Baselines())
    rows = {line[0]: line for line in printed(bare) if line}
    assert rows["bank-1"][3:6] == ["-", "0.800", "-"]
    assert baseline_lines(bare) == []


def test_rivals_are_compared_with_the_mean():
    central, fedavg = baseline_lines(RUN)
    assert "0.850" in central
    assert "-0.100" in central
    assert "+0.010" in fedavg


def test_a_perfect_result_is_doubted():
    assert leak_lines(RUN) == []
    (line,) = leak_lines(replace(RUN, nodes=(node("bank-1", 0.9997, 0.5), node("bank-2", 0.7, 0.9))))
    assert line.startswith("an AUPRC of 1.000 is too good") and "data describe" in line


def test_attackers_count_for_nothing_and_are_told_with_who_quarantined_them():
    attacker = replace(node("bank-3", 0.1, 0.9), role="attacker")
    unseen = replace(node("bank-4", 0.2, None), role="attacker")
    told = (
        Quarantine("bank-1", "bank-3", 4, 4, None),
        Quarantine("bank-2", "bank-3", 5, 6, 9),
        Quarantine("bank-2", "bank-1", 5, 7, 8),
        Quarantine("bank-2", "bank-1", 12, 11, None),
        Quarantine("bank-3", "bank-1", 1, 1, None),
    )
    run = replace(RUN, nodes=(*RUN.nodes, attacker, unseen), quarantines=told)
    rows = {line[0]: line for line in printed(run) if line}
    assert rows["mean"][2] == "0.750" and rows["worst"][2] == "0.700"
    assert rows["bank-3"][:2] == ["bank-3", "*"]
    assert quarantine_lines(run) == [
        "bank-3 (attacker): quarantined by 2 of 2 honest banks, after 4 to 6 of its models; 1 of them listens again",
        "bank-4 (attacker): quarantined by nobody",
        "bank-1 (honest): quarantined by 1 of 1 honest banks, after 7 of its models",
    ]
    assert quarantine_lines(RUN) == []
