"""`python -m p2pfed` and the `p2pfed` command."""

from __future__ import annotations

import io
import os
import signal
import sys

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
"""What a container's first process passes on."""


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        if os.getpid() == 1:
            leave_first()
        if isinstance(sys.stdout, io.TextIOWrapper):  # None as with `>&-`; standard error never fails
            sys.stdout.reconfigure(errors="backslashreplace")
        from p2pfed.cli import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:  # before a command could hear it
        sys.exit(130)


def leave_first() -> None:
    """Go on in a child of this process, which stays behind as a container's init and ends as that child does.

    Signals that nobody handles yet are lost on process 1, and to it fall the orphans of all others. To reap them here,
    any child that ends, would take the exit codes of its trainers from a daemon.
    """
    heard = {*PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if not child:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    while True:
        told = signal.sigwaitinfo(heard)
        if told.si_signo != signal.SIGCHLD:
            if told.si_code <= 0:  # by a process; the terminal's Ctrl-C reaches the child by itself
                os.kill(child, told.si_signo)
            continue
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:  # one signal may stand for several children
            if ended[0] == child:
                code = os.waitstatus_to_exitcode(ended[1])
                os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
