"""p2pfed: banks learn a fraud model together, peer to peer."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pfed.experiment.simulation import simulate

__all__ = ["__version__", "simulate"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`p2pfed.simulate`, imported when it is asked for: a daemon needs none of what it needs."""
    if name == "simulate":
        return import_module("p2pfed.experiment.simulation").simulate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
