"""Renders chat templates in a process of its own: the program that `swarm.client.renderer` runs. Only jinja2 is imported.

A template comes from strangers. The sandbox keeps it from Python's insides; what it cannot bound is time and memory
(`'a' * 10**12`, loops in loops), so a rendering that takes too much of them ends with this process, and only with it.

One line of JSON asks: {"template", "values"}. One line answers: {"text"}, {"no_jinja": why} or {"refused": why}.
"""

from __future__ import annotations

import datetime
import json
import resource
import signal
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MEMORY_BYTES = 512 * 2**20
"""The most memory, Python's own included."""
TEXT_CHARACTERS = 16 * 2**20
"""The longest prompt: far more than any context holds."""
_FAILURES = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Arguments(dict[str, Any]):
    """A call's arguments: an object for templates that write it as JSON, and its JSON for those that expect a text."""

    def __str__(self) -> str:
        return to_json(self)

    def __radd__(self, before: str) -> str:
        return before + str(self)

    def __add__(self, after: str) -> str:
        return str(self) + after


class PlainNamespace(Namespace):
    """`namespace()` without names that begin with an underscore, as transformers has it."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a namespace has no unsafe names such as {name}")
        super().__setitem__(name, value)


class GenerationTag(Extension):
    """`{% generation %}` marks what a model said, for training; it writes its body as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[Node]:
        """The nodes between the tag and its end."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment() -> ImmutableSandboxedEnvironment:
    """What transformers' `apply_chat_template` gives to templates."""
    found = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationTag]
    )
    found.filters["tojson"] = to_json
    found.globals["raise_exception"] = refuse
    found.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    found.globals["namespace"] = PlainNamespace
    return found


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is, where jinja's own filter escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def refuse(message: str) -> NoReturn:
    """`raise_exception` in a template."""
    raise TemplateError(message)


def values_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The template's values, the arguments of calls as both of what templates take them for."""
    for message in raw.get("messages", ()):
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = Arguments(call["function"]["arguments"])
    return dict(raw)


def answer(asked: Mapping[str, Any], known: dict[str, Template]) -> dict[str, str]:
    """Render one; `known` are templates that are compiled already."""
    try:
        source = asked["template"]
        if source not in known:
            known[source] = environment().from_string(source)
        text = ""
        for piece in known[source].generate(values_of(asked["values"])):
            text += piece
            if len(text) > TEXT_CHARACTERS:
                return {"refused": f"it writes more than {TEXT_CHARACTERS} characters"}
        return {"text": text}
    except TemplateSyntaxError as error:
        return {"no_jinja": str(error)}
    except MemoryError:
        return {"refused": f"it takes more than {MEMORY_BYTES >> 20} MiB of memory"}
    except _FAILURES as error:
        return {"refused": str(error) or type(error).__name__}


def main(cpu_s: float) -> None:
    """Answer until nobody asks. `cpu_s`: the most time on a processor for one rendering, in seconds."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    known: dict[str, Template] = {}
    for line in sys.stdin.buffer:
        # The signal's default is to end the process, whatever it is doing, and even where nobody is left to do it.
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        reply = json.dumps(answer(json.loads(line), known)).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(reply + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]))
