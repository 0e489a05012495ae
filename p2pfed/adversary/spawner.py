"""The banks' spawner of trainers, and that of attackers that poison their rows.

`python -m p2pfed.adversary.spawner SOCKET KIND=SOCKET...` has one process for all of them: TensorFlow is imported once,
and attackers begin to train when the banks do.
"""

from __future__ import annotations

import sys
from pathlib import Path

from p2pfed.adversary.attacks import attack_from_name
from p2pfed.runtime.spawner import serve_at


def main(arguments: list[str]) -> None:
    """Serve on the first socket as the banks' spawner does; on the others, poison the rows that trainers see."""
    banks, *attackers = arguments
    poisoned = [attacker.partition("=") for attacker in attackers]
    serve_at({Path(banks): None} | {Path(path): attack_from_name(kind).rows for kind, _, path in poisoned})


if __name__ == "__main__":
    main(sys.argv[1:])
