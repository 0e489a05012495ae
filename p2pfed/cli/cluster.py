"""A consortium of real daemons on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from p2pfed.cli.terminal import AllowCode, Drop, Force, check_free, names, numbers
from p2pfed.cluster.options import ClusterOptions as Default
from p2pfed.core.aggregation import code_allowed
from p2pfed.errors import UsageError

Split = Annotated[Literal["stratified", "time"], typer.Option(help="Hold out a random or the newest share of rows.")]
Model = Annotated[Literal["mlp", "autoencoder"], typer.Option(help="Kind of model.")]
Imbalance = Annotated[
    Literal["none", "class_weight", "smote", "adasyn", "undersample"],
    typer.Option(help="What is done about frauds being rare."),
]


def run(
    nodes: Annotated[int, typer.Option(help="Banks, each a daemon of its own.")] = Default.nodes,
    rounds: Annotated[int, typer.Option(help="Rounds of training and merging, of each cycle.")] = Default.rounds,
    cycles: Annotated[int, typer.Option(help="Cycles of the calendar that banks run; 0 is none.")] = Default.cycles,
    round_seconds: Annotated[float, typer.Option(help="Length of a calendar's round.")] = Default.round_seconds,
    data: Annotated[Path | None, typer.Option(help="CSV or Parquet file of payments; default generated ones.")] = None,
    label: Annotated[str, typer.Option(help="Its fraud column.")] = Default.label,
    drop: Drop = None,
    time: Annotated[str | None, typer.Option(help="Its payment-time column.")] = None,
    split: Split = Default.split,
    test_share: Annotated[float, typer.Option(help="Share of the rows held out for all.")] = Default.test_share,
    gap_days: Annotated[float, typer.Option(help="Days left out before a time split's test.")] = Default.gap_days,
    own_test_share: Annotated[
        float, typer.Option(help="Share of its own rows a bank measures on.")
    ] = Default.own_test_share,
    partition: Annotated[
        str, typer.Option(help="How rows of --data are dealt: iid, dirichlet:0.5, lognormal:0.8 or by:COL.")
    ] = Default.partition,
    topology: Annotated[
        str, typer.Option(help="Whom a node pulls from: random:6, full, ring or regular:K.")
    ] = Default.topology,
    model: Model = Default.model,
    hidden: Annotated[str, typer.Option(help="Hidden layers, such as 64,32; default by kind of model.")] = "",
    dropout: Annotated[float, typer.Option(help="Share of hidden units dropped in training.")] = Default.dropout,
    local_steps: Annotated[int, typer.Option(help="Optimiser steps a round; 0 is one epoch.")] = Default.local_steps,
    batch: Annotated[int, typer.Option(help="Rows an optimiser step.")] = Default.batch,
    learning_rate: Annotated[float, typer.Option(help="Adam's learning rate.")] = Default.learning_rate,
    decay_rounds: Annotated[
        str | None, typer.Option(help="Rounds after which the rate is divided by 5; default at three quarters.")
    ] = None,
    imbalance: Imbalance = Default.imbalance,
    rule: Annotated[
        str, typer.Option(help="How models are merged: clip, mean, or with --allow-code module:Class.")
    ] = Default.rule,
    allow_code: AllowCode = False,
    no_reputation: Annotated[
        bool, typer.Option("--no-reputation", help="Let no bank judge others' models: the merge rule is alone.")
    ] = False,
    attack: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND:COUNT", help="So many banks attack, such as signflip:3; repeatable."),
    ] = None,
    round_interval: Annotated[float, typer.Option(help="Least seconds from round to round.")] = Default.round_interval,
    evaluate_every: Annotated[
        int, typer.Option(help="Rounds between evaluations; 0 makes about ten.")
    ] = Default.evaluate_every,
    seed: Annotated[int, typer.Option(help="Draws data, partition and initial weights.")] = Default.seed,
    baselines: Annotated[str, typer.Option(help="Of alone,centralised,fedavg; empty for none.")] = "alone",
    keep: Annotated[bool, typer.Option("--keep", help="Leave keys, data, state and logs where they are.")] = False,
    directory: Annotated[Path | None, typer.Option("--dir", help="Where the cluster lives.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the run file here.")] = None,
    force: Force = False,
) -> None:
    """Found a consortium of real daemons on loopback, learn for some rounds, and compare."""
    if json is not None:
        check_free(json, force)
    with code_allowed(allow_code):
        _compare(
            Default(
                nodes=nodes,
                rounds=rounds,
                cycles=cycles,
                round_seconds=round_seconds,
                data=data,
                label=label,
                drop=tuple(drop or ()),
                time=time,
                split=split,
                test_share=test_share,
                gap_days=gap_days,
                own_test_share=own_test_share,
                partition=partition,
                topology=topology,
                model=model,
                hidden=numbers(hidden, "--hidden"),
                dropout=dropout,
                local_steps=local_steps,
                batch=batch,
                learning_rate=learning_rate,
                decay_rounds=None if decay_rounds is None else numbers(decay_rounds, "--decay-rounds"),
                imbalance=imbalance,
                rule=rule,
                reputation=not no_reputation,
                attacks=tuple(_attackers(text) for text in attack or ()),
                round_interval=round_interval,
                evaluate_every=evaluate_every,
                seed=seed,
                baselines=names(baselines),
                keep=keep,
                directory=directory,
                json=json,
            )
        )


def _attackers(text: str) -> tuple[str, int]:
    kind, colon, count = text.rpartition(":")
    if not (colon and count.isdecimal() and len(count) < 6):
        raise UsageError(f"--attack {text}: expected KIND:COUNT, such as signflip:3")
    return kind, int(count)


def _compare(options: Default) -> None:
    from p2pfed.cluster.progress import Screen
    from p2pfed.experiment import comparison, report

    measured = comparison.run(options, Screen())
    print(report.closing_table(measured))
    print(*report.quarantine_lines(measured), *report.baseline_lines(measured), *report.leak_lines(measured), sep="\n")
