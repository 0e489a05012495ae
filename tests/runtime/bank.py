"""A small bank for the trainer's tests: a CSV file, its configuration and the manifest it trains under."""

from pathlib import Path

import numpy as np

from p2pfed.config import NodeConfig
from p2pfed.core.consortium import GossipPolicy, Manifest
from p2pfed.core.contract import FeatureColumn, FeatureContract, Moments
from p2pfed.core.model import ModelSpec, TrainingPolicy

ROWS, FRAUDS, COLUMNS = 600, 60, ("a", "b", "c")


def write_bank(folder: Path, seed: int = 0) -> None:
    """Write `folder/bank.csv`: three numeric columns and `fraud`, which `a` and `b` together give away."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((ROWS, len(COLUMNS)))
    score = features[:, 0] + features[:, 1] + generator.standard_normal(ROWS)
    fraud = score >= np.sort(score)[-FRAUDS]
    lines = [",".join([*(f"{x:.6f}" for x in row), str(int(f))]) for row, f in zip(features, fraud, strict=True)]
    (folder / "bank.csv").write_text("\n".join([",".join([*COLUMNS, "fraud"]), *lines, ""]))


def config(folder: Path, **learning: object) -> NodeConfig:
    """The bank's configuration; `learning` changes that section."""
    return NodeConfig.model_validate(
        {
            "version": 1,
            "node": {"name": "bank-a", "state_dir": str(folder / "state")},
            "data": {"source": {"kind": "csv", "path": folder / "bank.csv"}, "label": "fraud", "split": "stratified"},
            "learning": learning,
        }
    )


def manifest(dropout: float = 0.0) -> Manifest:
    """A manifest that fits the bank; its member and admin lists are empty, the trainer reads neither."""
    model = ModelSpec("mlp", len(COLUMNS), (8, 4), dropout)
    columns = tuple(FeatureColumn(name, "numeric", (), "none") for name in COLUMNS)
    return Manifest(
        consortium="00" * 16,
        name="test",
        version=1,
        previous="",
        issued=0,
        expires=2**40,
        admins=(),
        threshold=1,
        members=(),
        model=model,
        generation=0,
        seed=7,
        initial_sha256=model.initial_weights(7).digest,
        contract=FeatureContract(columns, "fraud", "contract", Moments((0.0,) * 3, (1.0,) * 3), 8.0),
        training=TrainingPolicy(20, 32, 1e-3, (), "class_weight", 10.0),
        gossip=GossipPolicy("clip", 2, 1.0, 0.0, "float32", 1.0, 5),
    )
