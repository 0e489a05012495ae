"""What the processes of this machine's nodes have in common: one thread each, and no life after their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
"""Environment: many processes share the cores. To be set before numpy and TensorFlow are imported."""

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Let Linux send this process `number` when its parent, whose id is `parent`, dies; elsewhere nothing happens."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:  # it died before the request was made
        os._exit(0)
