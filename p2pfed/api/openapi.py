"""Routes as data, and the OpenAPI 3.1 document made from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from p2pfed.api.schemas import ErrorReply

PROBLEM_JSON = "application/problem+json"
PLACE = re.compile(r"{(\w+)}")
"""A part of a route's path that stands for a text."""
TOKEN = "token"
"""Name of the security scheme of routes that write."""


@dataclass(frozen=True)
class Parameter:
    """An integer query parameter."""

    name: str
    default: int
    minimum: int
    maximum: int
    meaning: str


@dataclass(frozen=True)
class Route:
    """One route: `handler` names a method of AdminServer, `reply` what its JSON is (`many`: a list of it)."""

    method: Literal["GET", "POST"]
    path: str
    handler: str
    summary: str
    reply: type[BaseModel] | None = None
    many: bool = False
    media: tuple[str, ...] = ("application/json",)
    parameters: tuple[Parameter, ...] = ()
    writes: bool = False
    body: type[BaseModel] | None = None
    """What JSON the request may carry."""


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The OpenAPI document of `routes`, as JSON values."""
    named = {model for r in routes for model in (r.reply, r.body) if model is not None}
    models = sorted(named | {ErrorReply}, key=lambda m: m.__name__)
    _, schemas = models_json_schema(
        [(model, "serialization") for model in models], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "p2pfed admin API", "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {TOKEN: {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for media in route.media:
        schema: dict[str, Any] = {"type": "string"}
        if media == "application/json":
            schema = _reference(route.reply) if route.reply else {"type": "object"}
            schema = {"type": "array", "items": schema} if route.many else schema
        content[media] = {"schema": schema}
    operation: dict[str, Any] = {
        "operationId": route.handler,
        "summary": route.summary,
        "parameters": [*map(_in_path, PLACE.findall(route.path)), *map(_parameter, route.parameters)],
        "responses": {
            "200": {"description": "success", "content": content},
            "default": {"description": "an error", "content": {PROBLEM_JSON: {"schema": _reference(ErrorReply)}}},
        },
    }
    if route.body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": _reference(route.body)}}}
    if route.writes:
        operation["security"] = [{TOKEN: []}]
    return operation


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    limits = {"minimum": parameter.minimum, "maximum": parameter.maximum, "default": parameter.default}
    return {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "description": parameter.meaning,
        "schema": {"type": "integer", **limits},
    }


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
