"""The banks' spawner of trainers, and that of attackers that poison their rows.

`python -m p2pfed.adversary.spawner TOGETHER SOCKET KIND=SOCKET...` has one process for all of them: TensorFlow is
imported once, and attackers begin to train when the banks do: as its first TOGETHER children, all of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from p2pfed.adversary.attacks import attack_from_name
from p2pfed.runtime.spawner import serve_at


def main(arguments: list[str]) -> None:
    """Serve on the first socket as the banks' spawner does; on the others, poison the rows that trainers see."""
    together, banks, *attackers = arguments
    poisoned = [attacker.partition("=") for attacker in attackers]
    changes = {Path(banks): None} | {Path(path): attack_from_name(kind).rows for kind, _, path in poisoned}
    serve_at(changes, int(together))


if __name__ == "__main__":
    main(sys.argv[1:])
