"""The closing table of a run: what learning together gave each bank, beside training alone and pooling rows."""

from __future__ import annotations

from collections.abc import Sequence

from p2pfed.results import Measures, NodeRun, RunFile

COLUMNS = ("bank", "rows", "frauds", "alone", "together", "gain", "own", "recall", "F1", "sent", "memory")
PERFECT = 0.9995
"""An AUPRC that is shown as 1.000."""
LEGEND = """alone, together: AUPRC on the pooled test; own: together's on the bank's own test;
recall: at 0.1 % false positives; sent, memory: of the daemon, without its trainer"""


def closing_table(run: RunFile) -> str:
    """One row a bank, then the mean and the worst bank, and a legend."""
    summary = []
    honest = [node for node in run.nodes if node.role == "honest"]
    for name, choose in (("mean", _mean), ("worst", _worst)):
        alone = choose([_auprc(node.alone.test if node.alone else None) for node in honest])
        together = choose([_auprc(node.test) for node in honest])
        row = (name, "", "", _number(alone), _number(together), _gain(together, alone))
        summary.append((*row, *[""] * (len(COLUMNS) - len(row))))
    banks = [_bank(node) for node in run.nodes]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *banks, *summary, strict=True)]
    rule = "  ".join("-" * width for width in widths)
    lines = [
        _line(COLUMNS, widths),
        rule,
        *(_line(b, widths) for b in banks),
        rule,
        *(_line(s, widths) for s in summary),
    ]
    title = f"{len(run.nodes)} banks, {run.rounds} rounds, {run.wall_seconds:.0f} s"
    attackers = ["* attacks, and counts neither for mean nor worst"] if len(honest) < len(run.nodes) else []
    return "\n".join([title, "", *lines, "", LEGEND, *attackers])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """The first cell to the left, numbers to the right."""
    padded = [
        cells[0].ljust(widths[0]),
        *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)),
    ]
    return "  ".join(padded).rstrip()


def quarantine_lines(run: RunFile) -> list[str]:
    """A sentence for each attacker, and for each honest bank that somebody quarantined: by how many, and when first."""
    honest = {node.name for node in run.nodes if node.role == "honest"}
    lines = []
    for node in sorted(run.nodes, key=lambda n: n.role):
        others = honest - {node.name}
        told = [q for q in run.quarantines if q.subject == node.name and q.observer in others]
        first = {q.observer: q.exchange for q in reversed(told)}
        if first:
            when = " to ".join(str(n) for n in sorted({min(first.values()), max(first.values())}))
            again = len(first) - len({q.observer for q in told if q.released_round is None})
            back = f"; {again} of them listen{'s' if again == 1 else ''} again" if again else ""
            by = f"{len(first)} of {len(others)} honest banks, after {when} of its models{back}"
            lines.append(f"{node.name} ({node.role}): quarantined by {by}")
        elif node.role == "attacker":
            lines.append(f"{node.name} (attacker): quarantined by nobody")
    return lines


def baseline_lines(run: RunFile) -> list[str]:
    """A sentence for each baseline that was trained on the rows of all banks."""
    together = _mean([_auprc(node.test) for node in run.nodes if node.role == "honest"])
    lines = []
    for name, measures in (
        ("all rows in one place (centralised)", run.baselines.centralised),
        ("FedAvg with a trusted server", run.baselines.fedavg),
    ):
        if (theirs := _auprc(measures)) is not None:
            lines.append(f"{name}: AUPRC {theirs:.3f}; the banks' mean is {_gain(together, theirs)} beside it")
    return lines


def leak_lines(run: RunFile) -> list[str]:
    """A warning where learning together came out as good as perfect."""
    best = max((_auprc(node.test) or 0.0 for node in run.nodes if node.role == "honest"), default=0.0)
    if best < PERFECT:
        return []
    return [
        f"an AUPRC of {best:.3f} is too good: mostly a column is only known after the fraud; `p2pfed data describe` "
        "names columns, and pairs of them, that tell frauds by themselves"
    ]


def _bank(node: NodeRun) -> tuple[str, ...]:
    alone, together = _auprc(node.alone.test if node.alone else None), _auprc(node.test)
    test = node.test or {}
    return (
        node.name if node.role == "honest" else f"{node.name} *",
        f"{node.train_rows:,}",
        f"{node.train_frauds:,}",
        _number(alone),
        _number(together),
        _gain(together, alone),
        _number(_auprc(node.own_test)),
        _number(test.get("recall_at_fpr_0.001")),
        _number(test.get("f1")),
        _size(node.bytes_sent),
        _size(node.peak_rss_bytes),
    )


def _auprc(measures: Measures | None) -> float | None:
    return measures["auprc"] if measures else None


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return sum(known) / len(known) if known else None


def _worst(values: Sequence[float | None]) -> float | None:
    return min(_known(values), default=None)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _gain(ours: float | None, theirs: float | None) -> str:
    return "-" if ours is None or theirs is None else f"{ours - theirs:+.3f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f}M"
