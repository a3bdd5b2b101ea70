"""Write the commands' part of docs/cli.md from the commands themselves: `python -m swarm.cli.reference`, or `make reference`.

What stands before the first command there is written by hand. A command's text is what its module's docstring says behind the
first line, or where that is all, what `--help` says; its options are those it has.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from swarm.cli.main import COMMANDS, Command

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
FIRST = "\n## swarm "
WHOM = ("--swarm", "--plan-file", "--key", "--key-file")
"""Options that one passage of the page explains for all commands that have them."""
_DEFAULT = re.compile(r"\s*\[default: (.*)\]$")


def page(now: str) -> str:
    """The whole page, its first part as it is now."""
    by_hand, _, _ = now.partition(FIRST)
    return "\n\n".join([by_hand.rstrip("\n"), *(section(command) for command in COMMANDS.values())]) + "\n"


def section(command: Command) -> str:
    """What the page has of one command."""
    function = command.load()
    given = _parameters(function)
    heading = " ".join([f"## swarm {command.name}", *(p.usage for p in given if isinstance(p.info, ArgumentInfo))])
    rows = list(_rows([p for p in given if isinstance(p.info, OptionInfo)]))
    table = ["| option | |\n|---|---|\n" + "\n".join(rows)] if rows else []
    return "\n\n".join([heading, _text(function), f"Example: `{command.example}`", *table])


def _text(function: Callable[..., Any]) -> str:
    _, _, more = inspect.cleandoc(inspect.getmodule(function).__doc__ or "").partition("\n")
    return more.strip() or inspect.cleandoc(function.__doc__ or "")


@dataclass(frozen=True)
class _Parameter:
    """One argument or option, as its function declares it."""

    name: str
    type: Any
    info: ArgumentInfo | OptionInfo
    default: Any

    @property
    def usage(self) -> str:
        """Of an argument, for the heading: `MODEL`, in brackets where it may be left out."""
        listed = "|".join(self.type) if isinstance(self.type, type) and issubclass(self.type, StrEnum) else self.name.upper()
        said = self.info.metavar or listed
        return said if self.default is inspect.Parameter.empty or said.startswith("[") else f"[{said}]"

    @property
    def options(self) -> tuple[str, ...]:
        """`--json`, or whatever it is called."""
        said = (self.info.default, *(self.info.param_decls or ()))  # typer takes the first for a default that was moved
        names = (name for each in said if isinstance(each, str) for name in each.split("/"))
        return tuple(name for name in names if name.startswith("-"))

    @property
    def names(self) -> str:
        """Of an option, with what goes behind it."""
        flag = bool in (self.type, *get_args(self.type))
        value = "" if flag else f" {self.info.metavar or self._kind}"
        return ", ".join(f"`{name}{value}`" for name in self.options)

    @property
    def _kind(self) -> str:
        types = (self.type, *get_args(self.type))
        return "N" if int in types else "X" if float in types else "TEXT"

    @property
    def help(self) -> str:
        text, default = (self.info.help or "").replace("|", "\\|"), self.default
        if said := _DEFAULT.search(text):
            return f"{text[: said.start()].rstrip('.')}; default: {said[1]}"
        if default in (None, "", 0, inspect.Parameter.empty) or isinstance(default, bool):
            return text.rstrip(".")
        return f"{text.rstrip('.')}; default: `{default}`"


def _parameters(function: Callable[..., Any]) -> list[_Parameter]:
    hints = get_type_hints(function, include_extras=True)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = get_args(hints[name])[:2]
        found.append(_Parameter(name, kind, info, parameter.default))
    return found


def _rows(options: list[_Parameter]) -> Iterator[str]:
    talks = any("--swarm" in p.options for p in options)
    whom = [p for p in options if talks and set(p.options) & set(WHOM)]
    for option in options:
        if option not in whom:
            yield f"| {option.names} | {option.help} |"
    if whom:
        listed = sorted(whom, key=lambda p: WHOM.index(p.options[0]))
        yield f"| {', '.join(p.names for p in listed)} | see [above](#whom-a-command-talks-to) |"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
