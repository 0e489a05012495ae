"""The rules by their names."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from p2pfed.core.aggregation.clip import Clip, Clipped
from p2pfed.core.aggregation.coordinates import Median, TrimmedMean
from p2pfed.core.aggregation.distances import GeometricMedian, Krum, MultiKrum, NearestNeighbours
from p2pfed.core.aggregation.mean import Mean
from p2pfed.core.aggregation.rule import AggregationRule
from p2pfed.core.aggregation.screening import Balance, Ubar
from p2pfed.errors import ConfigError

RULES: Mapping[str, Callable[..., AggregationRule]] = {
    "clip": Clip,
    "mean": Mean,
    "clipped": Clipped,
    "trimmed_mean": TrimmedMean,
    "median": Median,
    "geometric_median": GeometricMedian,
    "krum": Krum,
    "multi_krum": MultiKrum,
    "nna": NearestNeighbours,
    "balance": Balance,
    "ubar": Ubar,
}


class Parameter(NamedTuple):
    """What may stand behind a rule's name and a colon."""

    means: str
    convert: Callable[[str], Any]
    example: str


ATTACKERS = Parameter("the number of attackers in a merge, a whole number", int, "2")
PARAMETERS: Mapping[str, Parameter] = {
    "clipped": Parameter("the radius, a number above 0", float, "1.5"),
    "balance": Parameter("the horizon in merges, a whole number from 1", int, "100"),
    **dict.fromkeys(("trimmed_mean", "krum", "multi_krum", "nna", "ubar"), ATTACKERS),
}

_code_allowed: ContextVar[bool] = ContextVar("code allowed", default=False)


@contextmanager
def code_allowed(allowed: bool = True) -> Iterator[None]:
    """Within, if `allowed`, a rule may be `module:Class`, which is imported and run: who starts the process said so.

    Anywhere else such a name is refused, whoever has signed it: manifests, scenarios and journals come from others.
    """
    before = _code_allowed.set(allowed or _code_allowed.get())
    try:
        yield
    finally:
        _code_allowed.reset(before)


def rule_problem(name: str) -> str:
    """Why nobody can merge by the rule of this name; empty if it may be. Nothing is imported for the answer."""
    if is_foreign(name) and _code_allowed.get():
        return ""
    try:
        rule_from_name(name)
    except ConfigError as error:
        return str(error)
    return ""


def rule_from_name(name: str) -> AggregationRule:
    """A new rule by its registry name, as `name:parameter`, or where that is allowed as `module:Class`.

    Names of the registry come first: a module that is called like one cannot be loaded. Raises ConfigError.
    """
    before, colon, behind = name.partition(":")
    if before not in RULES:
        return _loaded(name)
    if not colon:
        return RULES[before]()
    parameter = PARAMETERS.get(before)
    if parameter is None:
        raise ConfigError(f"merge rule {name!r}: {before!r} takes no parameter; write {before!r} alone")
    try:
        # of what Python takes for a number, only plain digits: one way to write a rule
        if not re.fullmatch(r"[0-9]{1,9}" + r"(\.[0-9]{1,9})?" * (parameter.convert is float), behind):
            raise ValueError(f"{behind!r} is none")
        return RULES[before](parameter.convert(behind))
    except ValueError as error:
        wanted = f"{parameter.means}, such as {before}:{parameter.example}"
        raise ConfigError(f"merge rule {name!r}: behind the colon belongs {wanted}; {error}") from None


def is_foreign(name: str) -> bool:
    """Whether `rule_from_name` would import a module for it."""
    before, colon, _ = name.partition(":")
    return bool(colon) and before not in RULES


def _loaded(name: str) -> AggregationRule:
    """A rule from a module of the operator's."""
    module, colon, attribute = name.partition(":")
    if not colon:
        *others, last = sorted(RULES)
        known = f"{', '.join(others)} or {last}"
        raise ConfigError(f"unknown merge rule {name[:63]!r}: choose {known}")
    if not _code_allowed.get():
        raise ConfigError(
            f"merge rule {name[:63]!r} names code, which only runs where whoever starts a process allows it: choose "
            "one of p2pfed's own rules, or say --allow-code if you trust whoever wrote that module"
        )
    try:
        kind = getattr(importlib.import_module(module), attribute)
        if not isinstance(kind, type):
            raise TypeError(f"{attribute} is no class")
        rule = kind()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"merge rule {name!r} cannot be loaded: {error}; install its module on this node") from error
    if not isinstance(rule, AggregationRule):
        raise ConfigError(f"merge rule {name!r} lacks name, merge, note_training, state or restore")
    return rule
