"""A spawner of trainers for attackers that poison their rows: `python -m p2pfed.adversary.spawner KIND SOCKET`."""

from __future__ import annotations

import sys

from p2pfed.adversary.attacks import attack_from_name
from p2pfed.runtime import spawner


def main(arguments: list[str]) -> None:
    """Serve as the banks' spawner does, but have trainers train on what the attack makes of their rows."""
    kind, *others = arguments
    spawner.main(others, attack_from_name(kind).rows)


if __name__ == "__main__":
    main(sys.argv[1:])
