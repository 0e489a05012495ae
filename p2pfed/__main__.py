"""`python -m p2pfed` and the `p2pfed` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        from p2pfed.cli import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:  # before a command could hear it
        sys.exit(130)


if __name__ == "__main__":
    main()
