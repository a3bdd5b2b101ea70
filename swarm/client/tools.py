"""The tools that a person lets the model call, by their JSON schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swarm.errors import UsageError

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True)
class Tool:
    """One function."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """A JSON schema of an object."""
    document: Mapping[str, Any]
    """The definition as it was given: `{"type": "function", "function": {...}}`."""


def read_tools(text: str, where: str) -> tuple[Tool, ...]:
    """Tools from a JSON list of definitions; each as OpenAI's API has them, or the bare function.

    Args:
        where: what the text is called in messages, such as the file's name.

    Raises:
        UsageError: it is no JSON, or a definition lacks something; the message names it.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON ({error}): give a list of tool definitions") from None
    if not isinstance(raw, list) or not raw:
        raise UsageError(f"{where} is no list of tool definitions: put them between [ and ]")
    tools = tuple(_tool(entry, f"tool {number} of {where}") for number, entry in enumerate(raw, 1))
    names = [tool.name for tool in tools]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{where} defines the tool {twice} twice: give each a name of its own")
    return tools


def _tool(entry: object, which: str) -> Tool:
    if not isinstance(entry, dict):
        raise UsageError(f"{which} is {_shape(entry)}: give an object with type and function")
    if "function" in entry and entry.get("type", "function") != "function":
        raise UsageError(f"{which} is of the type {entry['type']!r}: swarm knows only function")
    function = entry.get("function", entry)
    if not isinstance(function, dict):
        raise UsageError(f"{which} has {_shape(function)} as its function: give an object with name and parameters")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"{which} has the name {name!r}: use letters, digits, _ and -, at most 64")
    description, parameters = function.get("description") or "", function.get("parameters") or {}
    if not isinstance(description, str):
        raise UsageError(f"{which} ({name}) has {_shape(description)} as its description: give a text")
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise UsageError(f"{which} ({name}) has parameters that are no JSON schema of an object: give type object and properties")
    if not isinstance(parameters.get("properties", {}), dict):
        raise UsageError(f"{which} ({name}) has properties that are no object: give a schema for each parameter by its name")
    return Tool(name, description, parameters, entry if "function" in entry else {"type": "function", "function": entry})


def _shape(value: object) -> str:
    kinds: tuple[tuple[type, str], ...] = ((str, "a text"), (list, "a list"), (bool, "true or false"), (dict, "an object"))
    return next((word for kind, word in kinds if isinstance(value, kind)), "a number" if value is not None else "null")
