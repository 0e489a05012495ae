"""Proofs of equivocation: what this node knows, as files for others, and whether such a file proves what it says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from p2pfed.cli.daemon import client_of, state_dir_of
from p2pfed.cli.terminal import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    Force,
    naming,
    plural,
    printable,
    read_file,
    show,
    table,
    write_new,
)
from p2pfed.errors import LocalFault, NotPermitted, StateCorrupt, UsageError

if TYPE_CHECKING:
    from p2pfed.core.consortium import Manifest
    from p2pfed.core.messages import Equivocation

SHOWN = 12
"""Digits of a proof's digest that name it in lists."""

Proof = Annotated[str, typer.Argument(help="The proof's digest, or how it begins.")]


def every(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """The proofs this node knows, oldest first: members that signed two different updates with one sequence number."""
    rows = client_of(config).get("/api/v1/evidence")
    cells = [(row["proof"][:SHOWN], row["name"], row["member"][:7], row["seq"], row["standing"]) for row in rows]
    shown = [table(("PROOF", "MEMBER", "ID", "UPDATE", "STANDING"), cells)] if rows else []
    show(as_json, rows, "\n".join([*shown, plural(len(rows), "proof")]))


def about(proof: Proof, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """One proof: who signed what, and where the two statements differ."""
    row = _find(proof, config)
    show(as_json, row, _text(row))


def export(
    proof: Proof,
    config: ConfigPath = DEFAULT_CONFIG,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file; default evidence-PROOF.json.")] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write a proof to a file, which anybody who has the consortium's manifest can verify."""
    from p2pfed.core import record

    row = _find(proof, config)
    path = out or Path(f"evidence-{row['proof'][:SHOWN]}.json")
    write_new(path, record.canonical(row["document"]) + b"\n", force)
    text = f"wrote {path}; whoever has the manifest can check it: p2pfed evidence verify {path} --manifest MANIFEST"
    show(as_json, {"proof": row["proof"], "file": path}, text)


def verify(
    file: Annotated[Path, typer.Argument(help="The file with the proof.")],
    config: ConfigPath = DEFAULT_CONFIG,
    manifest: Annotated[
        Path | None, typer.Option(help="The consortium's manifest; default those in the node's state directory.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Whether a file proves that a member equivocated; no daemon is needed. Exit code 1 and why, if it does not, and
    65 if it is no proof at all."""
    known = _manifests(config) if manifest is None else [_trusted(manifest)]
    proof, name = _open(file, known)
    text = (
        f"{name} ({proof.member[:7]}) signed two different updates with sequence number {proof.seq}: both signatures "
        f"are its own\nproof {proof.digest}"
    )
    value = {"valid": True, "proof": proof.digest, "member": proof.member, "name": name, "seq": proof.seq}
    show(as_json, value, printable(text))


def _find(proof: str, config: Path) -> dict[str, Any]:
    rows = client_of(config).get("/api/v1/evidence")
    found: list[dict[str, Any]] = [row for row in rows if row["proof"].startswith(proof.lower())]
    if len(found) != 1:
        begin = f"{len(found)} proofs of this node begin" if found else "no proof of this node begins"
        raise UsageError(f"{begin} with {proof!r}: see `p2pfed evidence list`")
    return found[0]


def _text(row: dict[str, Any]) -> str:
    one, other = (signed["statement"] for signed in row["document"]["statements"])
    fields = [(name, one[name], other[name]) for name in one]
    differ = [(name, a, b) for name, a, b in fields if a != b]
    same = [(name, a) for name, a, b in fields if a == b]
    standing = "its models are not merged here" if row["standing"] == "proven" else "cleared here by the operator"
    return "\n".join(
        (
            f"{printable(row['name'])} ({row['member'][:7]}) signed two different updates with sequence number "
            f"{row['seq']}; {standing}",
            f"proof {row['proof']}",
            "",
            table(("DIFFERS", "ONE", "OTHER"), differ),
            "",
            table(("SAME IN BOTH", "VALUE"), same),
        )
    )


def _open(file: Path, known: list[Manifest]) -> tuple[Equivocation, str]:
    """The proof in a file and the name of its member, by the first manifest that lists it; raises LocalFault."""
    from p2pfed.core.evidence import open_proof
    from p2pfed.core.types import Reason
    from p2pfed.errors import RemoteFault

    data = read_file(file, "the proof").strip()  # an editor may have ended the last line
    fault: RemoteFault | None = None
    for manifest in known:
        try:
            proof = open_proof(data, manifest)
        except RemoteFault as error:
            fault = error
            if error.reason is not Reason.NOT_A_MEMBER:
                break
        else:
            return proof, manifest.by_id[proof.member].name
    no_proof = fault is not None and fault.reason in (Reason.MALFORMED, Reason.OVERSIZE)
    raise (StateCorrupt if no_proof else LocalFault)(f"{file} proves nothing: {fault}")


def _manifests(config: Path) -> list[Manifest]:
    """All that this bank has joined or followed, newest first: who is accused may have been expelled since."""
    from p2pfed.runtime.enrolment import trusted_chain
    from p2pfed.store.state_dir import StateDir

    root = state_dir_of(config)
    chain = trusted_chain(StateDir(root))
    if not chain:
        raise NotPermitted(f"{root} holds no manifest: name one with --manifest FILE")
    return [signed.manifest for signed in reversed(chain)]


def _trusted(path: Path) -> Manifest:
    """A manifest file that enough of its own admins have signed; raises ConfigError."""
    from p2pfed.core.consortium import parse_signed
    from p2pfed.core.succession import verify_root

    with naming(path):
        signed = parse_signed(read_file(path, "the manifest"))
        return verify_root(signed, signed.fingerprint)
