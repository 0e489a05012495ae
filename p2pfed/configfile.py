"""YAML file + `P2PFED_SECTION__KEY` variables + `--set section.key=value` -> NodeConfig, or another document.

Every mistake is reported at once, each with file, line and column; a pydantic traceback never reaches an operator.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from p2pfed import yamltext
from p2pfed.config import NodeConfig, Section
from p2pfed.errors import ConfigError, UsageError

PREFIX = "P2PFED_"

Location = tuple[str | int, ...]

Document = TypeVar("Document", bound=Section)


@dataclass(frozen=True)
class Places:
    """Where the values of a document stand, for what turns out to be wrong with them later; no two differ by that."""

    find: Callable[[Location], str] | None = field(default=None, compare=False)
    """The `file:line:col` of a value, or the variable or option that gave it; None for what was no file."""

    def at(self, *keys: str | int) -> str:
        """What an error about a value begins with: its place, if there is one, and its key with dots."""
        name = ".".join(map(str, keys))
        return name if self.find is None else f"{self.find(keys)}: {name}"


def load(path: Path, environ: Mapping[str, str] | None = None, settings: Sequence[str] = ()) -> NodeConfig:
    """The configuration in `path`; see `load_document`."""
    absent = "`p2pfed init` writes one, examples are in node_config/"
    return load_document(NodeConfig, path, environ, settings, absent=absent)[0]


def load_document(
    document: type[Document],
    path: Path,
    environ: Mapping[str, str] | None = None,
    settings: Sequence[str] = (),
    *,
    absent: str,
) -> tuple[Document, Places]:
    """Read `path`, lay variables of `environ` and then `--set` texts over it, and check the whole.

    Only variables with a double underscore are settings (`P2PFED_PEERS__LISTEN`). Their values and those of `--set` are
    text where the key's type is, and else YAML: `null`, `[a, b]`, `true`. Relative paths are made absolute, starting at
    the file's folder. `absent` is the advice where there is no such file. Raises ConfigError with every problem,
    UsageError for a `--set` that is not `key=value`.
    """
    source = _read(path, absent)
    overlays = [*_from_environment(environ or {}), *_from_settings(settings)]
    for overlay in overlays:
        _lay_over(source, document, overlay)
    try:
        value = document.model_validate(source.value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        source.problems += [_problem(source, document, detail) for detail in details]
    if source.problems:
        raise ConfigError(*(text for _, text in sorted(source.problems, key=lambda p: p[0])))
    return _absolute(value, path.resolve().parent), Places(lambda keys: source.place(keys)[1])


def from_mapping(document: type[Document], values: Mapping[str, Any]) -> Document:
    """The document that a program wrote as nested mappings; raises ConfigError with every problem."""
    try:
        return document.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        raise ConfigError(*(_sentence(d, *_follow(document, tuple(d["loc"]))) for d in details)) from None


Problem = tuple[tuple[int, int], str]
"""(line, column) to sort by, and the sentence or its place."""


@dataclass
class _Source:
    """The parsed file: plain values to validate, marks to point at, and where other values came from."""

    path: Path
    root: yaml.Node
    value: Any
    problems: list[Problem] = field(default_factory=list)
    origins: dict[Location, str] = field(default_factory=dict)

    def at(self, mark: yaml.Mark) -> Problem:
        return (mark.line, mark.column), f"{self.path}:{mark.line + 1}:{mark.column + 1}"

    def place(self, keys: Location, kind: str = "") -> Problem:
        """Where the value of `keys` stands; `kind` is pydantic's of what is wrong with it."""
        for length in range(len(keys), 0, -1):
            if origin := self.origins.get(keys[:length]):
                return (-1, 0), origin
        return self.at(_mark(self.root, keys, kind))


@dataclass(frozen=True)
class _Overlay:
    origin: str
    keys: tuple[str, ...]
    text: str


def _read(path: Path, absent: str) -> _Source:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; {absent}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    try:
        document = yamltext.Document(text)
        if not isinstance(root := document.root, yaml.MappingNode):
            raise ConfigError(f"{path}:1:1: expected `key: value` lines, beginning with `version: 1`")
        # checked before construction, which would silently keep the last of two equal keys
        duplicates = list(_duplicates(root, set()))
        value = document.value()
    except yamltext.YamlError as error:
        where = f"{path}:{error.mark.line + 1}:{error.mark.column + 1}" if error.mark else str(path)
        raise ConfigError(f"{where}: not YAML: {error}") from None
    source = _Source(path, root, value)
    for key, text in duplicates:
        order, place = source.at(key.start_mark)
        source.problems.append((order, f"{place}: {text}"))
    return source


def _duplicates(node: yaml.Node, seen: set[int]) -> Iterator[tuple[yaml.Node, str]]:
    """Keys given twice; `seen` are the nodes looked at already, of which an alias is one more mention."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _duplicates(item, seen)
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, item in node.value:
            if isinstance(key.value, str):
                if key.value in first:
                    yield key, f"key '{key.value}' is given twice, first on line {first[key.value]}"
                first.setdefault(key.value, key.start_mark.line + 1)
            yield from _duplicates(item, seen)


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Overlay]:
    for name in sorted(environ):
        if name.startswith(PREFIX) and "__" in name:
            keys = tuple(name[len(PREFIX) :].lower().split("__"))
            yield _Overlay(f"environment variable {name}", keys, environ[name])


def _from_settings(settings: Sequence[str]) -> Iterator[_Overlay]:
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--set {text}: expected section.key=value, for example --set data.label=is_fraud")
        yield _Overlay(f"--set {name.strip()}", tuple(name.strip().split(".")), value)


def _lay_over(source: _Source, document: type[Section], overlay: _Overlay) -> None:
    try:
        value = _value(overlay.text, _types(document, overlay.keys))
    except yamltext.YamlError as error:
        source.problems.append(((-1, 0), f"{overlay.origin}: the value is not YAML: {error}"))
        return
    place = source.value
    for key in overlay.keys[:-1]:
        if place.get(key) is None:
            place[key] = {}
        place = place[key]
        if not isinstance(place, dict):
            source.problems.append(((-1, 0), f"{overlay.origin}: {key} has no keys of its own"))
            return
    place[overlay.keys[-1]] = value
    source.origins[overlay.keys] = overlay.origin


def _value(text: str, types: Sequence[Any]) -> Any:
    """What `text` says of a value of these types. Text is itself, and in quotes what YAML makes of them."""
    bare, others = text.strip(), [one for one in types if one is not NoneType]
    if _only_text(others) and bare[:1] not in ("'", '"'):
        return None if NoneType in types and bare in ("", "~", "null") else bare or text
    of_text = bool(others) and all(get_origin(one) in (dict, tuple) and _only_text(_items(one)) for one in others)
    return yamltext.load(text, only_text=of_text)


def _only_text(types: Sequence[Any]) -> bool:
    texts = [one in (str, Path) or any(isinstance(word, str) for word in get_args(one)) for one in types]
    return bool(texts) and all(texts)


def _items(container: Any) -> list[Any]:
    """The types of a container's keys and values."""
    return [plain for part in get_args(container) if part is not Ellipsis for plain in _alternatives(part)]


def _types(document: type[Section], keys: tuple[str, ...]) -> list[Any]:
    """The types that the value of `keys` may have; none if there is no such key."""
    types: list[Any] = [document]
    for key in keys:
        sections = [one for one in types if isinstance(one, type) and issubclass(one, Section)]
        parts = [section.model_fields[key].annotation for section in sections if key in section.model_fields]
        parts += [get_args(one)[1] for one in types if get_origin(one) is dict]
        types = [plain for part in parts for plain in _alternatives(part)]
    return types


def _alternatives(annotation: Any) -> list[Any]:
    """The types that a union is of, and a type alone without what is annotated about it."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [plain for part in get_args(annotation) for plain in _alternatives(part)]
    return [annotation]


def _problem(source: _Source, document: type[Section], detail: ErrorDetails) -> Problem:
    models, keys = _follow(document, tuple(detail["loc"]))
    order, place = source.place(keys, detail["type"])
    return order, f"{place}: {_sentence(detail, models, keys)}"


def _follow(document: type[Section], location: Location) -> tuple[list[type[BaseModel]], Location]:
    """The models that could hold the last key of `location`, and `location` without a union's tags."""
    models: list[type[BaseModel]] = [document]
    keys: list[str | int] = []
    for i, part in enumerate(location):
        tagged = [m for m in models if len(models) > 1 and part in get_args(m.model_fields["kind"].annotation)]
        if tagged:
            models = tagged
            continue
        keys.append(part)
        if i < len(location) - 1 and isinstance(part, str):  # a list's index stays among the models of its items
            fields = [m.model_fields[part] for m in models if part in m.model_fields]
            models = [section for f in fields for section in _sections(f.annotation)]
    return models, tuple(keys)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections(argument)]


def _sentence(detail: ErrorDetails, models: list[type[BaseModel]], keys: Location) -> str:
    name = ".".join(map(str, keys)) or "the file"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    match detail["type"]:
        case "extra_forbidden":
            known = sorted({known for model in models for known in model.model_fields})
            close = difflib.get_close_matches(str(keys[-1]), known, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}"
            return f"unknown key '{name}'; {hint}"
        case "missing":
            return f"'{name}' is missing"
        case "union_tag_not_found":
            return f"{name}: 'kind' is missing; it is csv, parquet or sql"
        case "union_tag_invalid":
            return f"{name}.kind: should be csv, parquet or sql"
        case "value_error":
            return f"{name}: {message}"
        case "path_type":
            return f"{name}: should be a path, got {_brief(detail['input'])}"
        case "model_type" | "dict_type":
            return f"{name}: should have keys of its own, got {_brief(detail['input'])}"
    return f"{name}: {message}, got {_brief(detail['input'])}"


def _brief(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    if "://" in text:  # it may have a password
        return "a URL"
    return text if len(text) <= 60 else text[:57] + "..."


def _mark(node: yaml.Node, keys: Location, kind: str) -> yaml.Mark:
    mark = node.start_mark
    for key in keys:
        found: tuple[yaml.Node, yaml.Node] | None = None
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(key)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            found = node.value[key], node.value[key]
        if found is None:
            break
        name, node = found
        # an unknown key is underlined itself, a wrong value where it stands; a missing key at the section's name
        scalar = isinstance(node, yaml.ScalarNode) and kind != "extra_forbidden"
        mark = node.start_mark if scalar else name.start_mark
    return mark


def _absolute(model: Any, folder: Path) -> Any:
    changes: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, Path):
            changes[name] = folder / value
        elif isinstance(value, BaseModel):
            changes[name] = _absolute(value, folder)
    return model.model_copy(update=changes)
