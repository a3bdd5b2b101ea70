"""The entry point `swarm`: finds the command, runs it, and turns what goes wrong into one sentence and an exit code.

A command's module is imported only when that command runs, so that `swarm chat` needs neither torch nor ray.
Exit codes: 0, 1 for failure, 2 for usage, 130 after Ctrl-C (0 where Ctrl-C is the way to end: up, join, worker).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from swarm import __version__
from swarm.cli import output, settings
from swarm.cli.install import remedy
from swarm.cli.own_words import hide_key
from swarm.errors import SwarmError

INTERRUPTED = 130


@dataclass(frozen=True)
class Command:
    """One command: the function of its own name in the module of its own name under `swarm.cli`."""

    name: str
    about: str
    example: str
    passes: bool = False
    """Options that it does not have are part of its words: it has another command run."""

    def load(self) -> Callable[..., Any]:
        """Import the command's function."""
        function: Callable[..., Any] = getattr(import_module(f"swarm.cli.{self.name}"), self.name)
        return function

    @property
    def epilog(self) -> str:
        return f"Example:  {self.example}"


COMMANDS = {
    c.name: c
    for c in (
        Command("up", "Start a swarm here and stay in the foreground.", "swarm up mistralai/Mixtral-8x7B-Instruct-v0.1"),
        Command("join", "Contribute this rig's devices to a swarm until Ctrl-C.", "swarm join 192.168.1.20:7700"),
        Command("load", "Give the swarm another model.", "swarm load ~/models/Mixtral-8x7B-Instruct-v0.1"),
        Command("unload", "Give the memory of the model back until somebody asks.", "swarm unload"),
        Command("pause", "Give a card back for a while: what it holds moves.", "swarm pause --device cuda:0"),
        Command("resume", "Plan on what was paused again.", "swarm resume"),
        Command("pull", "Fetch a model from the Hub without loading it.", "swarm pull mistralai/Mixtral-8x7B-Instruct-v0.1"),
        Command("chat", "Talk to the model; one answer with PROMPT or piped text.", 'swarm chat "What is the capital of France?"'),
        Command("score", "Log-probability of each token of a text, and its perplexity.", "swarm score notes.txt --json"),
        Command("bench", "How fast the swarm is, and where a token's time goes.", "swarm bench --sessions 1,4 --new 32"),
        Command("doctor", "Whether this machine could join, and what to mend where not.", "swarm doctor 192.168.1.20"),
        Command("status", "What the swarm holds, where, and how busy it is.", "swarm status --watch"),
        Command("logs", "What the swarm's processes said, on all rigs.", "swarm logs attic --since 1h"),
        Command("report", "One file to attach to a bug, without keys and names.", "swarm report --out bug.txt"),
        Command("experts", "What the routers chose, Block by Block, and where those experts are.", "swarm experts --block 3"),
        Command("plan", "Where everything would go, and why, without starting anything.", "swarm plan nano --device cpu=4GiB"),
        Command("key", "Invitations for those who may chat and not join; another key.", "swarm key invite --expires 7d"),
        Command("models", "Which models are here, on which rig, how big, in which dtype.", "swarm models"),
        Command("cache", "What this rig's disk keeps of quantized weights; prune deletes.", "swarm cache prune --older-than 30d"),
        Command("down", "Stop the swarm that this rig heads.", "swarm down"),
        Command(
            "service", "Have `up` or `join` run from the start of the machine on.", "swarm service install join 192.168.1.20", True
        ),
        Command("worker", "One Worker without Ray, from a Plan in a file.", "swarm worker --plan-file plan.json --name w0"),
    )
}


class LazyGroup(TyperGroup):
    """The group of all commands; a command's module is imported when its name is on the command line."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = _command(COMMANDS[args[0]])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        # Caught here because typer would answer Ctrl-C with exit code 1.
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None


def _app() -> typer.Typer:
    app = typer.Typer(cls=LazyGroup, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(_swarm)
    for command in COMMANDS.values():
        app.command(command.name, help=command.about, epilog=command.epilog)(_unloaded)
    return app


def _command(command: Command) -> Any:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    context = {"ignore_unknown_options": command.passes}
    app.command(command.name, epilog=command.epilog, context_settings=context)(command.load())
    return typer.main.get_command(app)


def _unloaded() -> None:
    """Stands for a command in the list of all; `LazyGroup` puts the real one in its place."""


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"swarm {__version__}\n")
        raise typer.Exit


def _swarm(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Run mixture-of-experts models across the mismatched GPUs you already own.

    `swarm up` on one machine, `swarm join` on the others, `swarm chat` on any. `swarm COMMAND --help` has an example of each.
    """


def main() -> None:
    """Run the command line. Every failure is one sentence on standard error; a traceback is a bug."""
    output.open_what_is_closed()
    settings.silence_libraries()
    settings.let_threads_sleep()
    hide_key()
    output.write_what_the_encoding_holds()
    try:
        _app()(prog_name="swarm")
    except SwarmError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        output.give_up_stdout()
        _fail(settings.why(error), 1)
    except ModuleNotFoundError as error:
        sentence = remedy(error)
        if sentence is None:
            raise
        _fail(sentence, 1)


def _fail(sentence: str, exit_code: int) -> None:
    sys.stderr.write(f"swarm: {sentence}\n")
    raise SystemExit(exit_code)


if __name__ == "__main__":
    main()
