"""The rules by their names."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from p2pfed.core.aggregation.clip import Clip
from p2pfed.core.aggregation.mean import Mean
from p2pfed.core.aggregation.rule import AggregationRule
from p2pfed.errors import ConfigError

RULES: dict[str, Callable[[], AggregationRule]] = {"clip": Clip, "mean": Mean}


def rule_from_name(name: str) -> AggregationRule:
    """A new rule by its registry name or as `module:Class` (constructed without arguments); raises ConfigError."""
    if name in RULES:
        return RULES[name]()
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"unknown merge rule {name!r}: choose {' or '.join(sorted(RULES))}, or write module:Class")
    try:
        rule = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"merge rule {name!r} cannot be loaded: {error}; install its module on this node") from error
    if not isinstance(rule, AggregationRule):
        raise ConfigError(f"merge rule {name!r} lacks name, merge, note_training, state or restore")
    return rule
