"""An attacker as a real daemon, for clusters on one machine: `python -m p2pfed.adversary KIND CONFIG [--allow-code]`.

It needs the keys of a member and a configuration like any bank, and attacks as KIND says (`attacks.ATTACKS`), alone:
attackers of different processes tell each other nothing. Rows are poisoned by the trainers' spawner that its
configuration names, `adversary.spawner`. `--allow-code` is that of `p2pfed start`, which knows nothing of this module.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from p2pfed import configfile
from p2pfed.adversary.attacks import campaign_from_name
from p2pfed.adversary.node import AttackingNode
from p2pfed.core.aggregation import code_allowed
from p2pfed.core.identity import Signer
from p2pfed.core.node import GossipNode
from p2pfed.errors import P2PFedError, UsageError
from p2pfed.runtime import daemon
from p2pfed.runtime.recording import Birth


def run(kind: str, config: Path) -> int:
    """Run the daemon of `config` with an attacking node; returns the exit code, raises what a bank's daemon does."""
    campaign = campaign_from_name(kind)

    def attacking(signer: Signer, birth: Birth) -> GossipNode:
        parts = birth.parts()
        return AttackingNode(signer, *parts[:4], campaign, force=parts[4])

    return daemon.run(configfile.load(config, os.environ, ()), make=attacking)


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    try:
        kind, config, *more = arguments if len(arguments) > 1 else ("", "", "")
        if more not in ([], ["--allow-code"]):
            raise UsageError("usage: python -m p2pfed.adversary KIND CONFIG [--allow-code]")
        with code_allowed(bool(more)):
            return run(kind, Path(config))
    except P2PFedError as error:
        print(f"p2pfed.adversary: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
