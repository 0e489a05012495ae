"""The one place where YAML is read: plain values only, and aliases that stand for a bounded number of them."""

from __future__ import annotations

from typing import Any

import yaml

MAX_ALIASED = 10_000
"""Values that a text's aliases may stand for beyond what it writes: each alias of a list of aliases multiplies them."""

UNREADABLE = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, ArithmeticError)
"""What PyYAML raises of texts that are none, and of tags such as `!!int` on what is no number."""


class YamlError(ValueError):
    """What is no YAML that is read here; `mark` is where, if known."""

    def __init__(self, problem: str, mark: yaml.Mark | None = None) -> None:
        super().__init__(problem)
        self.mark = mark


class Document:
    """One YAML text, taken apart but not yet made into values: its nodes say where everything stands."""

    def __init__(self, text: str, only_text: bool = False) -> None:
        """With `only_text` all its values are text, as they stand there. Raises YamlError."""
        try:
            self._loader = yaml.BaseLoader(text) if only_text else yaml.SafeLoader(text)
            self.root = self._loader.get_single_node()
            self._bound()
        except UNREADABLE as error:
            raise _said(error) from None

    def value(self) -> Any:
        """The plain values; raises YamlError."""
        try:
            return None if self.root is None else self._loader.construct_document(self.root)
        except UNREADABLE as error:
            raise _said(error) from None

    def _bound(self) -> None:
        sizes: dict[int, int] = {}
        whole = 0 if self.root is None else _size(self.root, sizes)
        if whole - len(sizes) > MAX_ALIASED:
            raise YamlError(f"its aliases (*name) stand for {_count(whole)} values: write them out, or fewer of them")


def load(text: str, only_text: bool = False) -> Any:
    """The plain values of a YAML text, see `Document`; raises YamlError."""
    return Document(text, only_text).value()


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many nodes there are below `node` and with it, each alias counted as what it stands for."""
    known = sizes.get(id(node))
    if known is not None:
        if known == 0:
            raise YamlError("an alias (*name) stands within what it names", node.start_mark)
        return known
    sizes[id(node)] = 0
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        parts = node.value
    elif isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    sizes[id(node)] = size = 1 + sum(_size(part, sizes) for part in parts)
    return size


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**9 else "more than a thousand million"


def _said(error: Exception) -> YamlError:
    if isinstance(error, YamlError):
        return error
    if isinstance(error, yaml.MarkedYAMLError):
        return YamlError(str(error.problem or error.context), error.problem_mark or error.context_mark)
    return YamlError(" ".join(str(error).split()))
