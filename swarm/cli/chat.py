"""`swarm chat`: talk to the model.

One answer with `PROMPT`, or with text on standard input (`-` asks for that by name): the answer and a newline are all that
standard output holds. Without either, at a terminal, a conversation: Ctrl-C stops the answer, Ctrl-D ends the chat, and a further
question costs only its own tokens. At a terminal tokens/s and the time to the first token appear on standard error. What is not
wished comes from the model's `generation_config.json`, else temperature 0.7; the seed from chance.

`finish_reason` is `stop` (the model's end, which `tokens` then ends with, or a stop text) or `length`. With `--tools` the
document has `"tool_calls": [{"id", "name", "arguments": {...}}]`, too, empty where the answer calls nothing.

`--via RIG` has that rig run the Decoder, and sends only text over the link between here and there: for Wi-Fi, a hotspot, a VPN.
The text is the same. Where that rig goes away, also in the middle of an answer, the chat goes on over another rig, or from here.
After an answer over a slow link, at a terminal, `swarm chat` says once what the link adds to a token and which rig would spare it.

A model without a chat template was trained on no chat: `swarm chat` says so and continues the text as it is.

With `--json`: `{"text", "tokens": [ids], "logprobs", "finish_reason", "usage": {"prompt_tokens", "completion_tokens",
"total_tokens", "cached_tokens"}, "timings": {"ttft_s", "tokens_per_s", "traversals", "drafted", "kept", "hops": [...]}}`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from swarm.cli import options, output
from swarm.cli.repl import Repl, said_call, show_timings
from swarm.cli.terminal import Terminal
from swarm.cli.tracer import Tracer, trace_document, tracing
from swarm.cli.via import hint_at_via, talking_via
from swarm.client.answer import Answer
from swarm.client.chat_template import OWN_TEMPLATE
from swarm.client.client import open_client
from swarm.client.messages import ToolCall, plain_text
from swarm.client.roving_talk import RovingTalk
from swarm.client.talk import Talk, Wishes
from swarm.client.tools import read_tools
from swarm.client.waterfall import Waterfall
from swarm.errors import UsageError


@dataclass(frozen=True)
class Asked:
    """What was asked for beside the question.

    Args:
        own: files in the place of the model's own.
        via: the rig whose Decoder answers; empty: the one of this process.
    """

    target: options.Target
    wishes: Wishes
    own: Mapping[str, bytes]
    via: str
    trace: bool


def chat(
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="The question; `-` reads it from standard input.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="What the model is told before the first question.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0, help="0 takes the likeliest token.")] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", min=0, max=1, help="Draw from the fewest best tokens with this share of the probability."),
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", min=0, help="Draw from this many likeliest; 0: from all.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, help="The same seed draws the same tokens; in 2 bytes a number and less, last bits may change one."
        ),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="Stop after this many tokens.")] = None,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="End the answer before this text; repeatable.")] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option("--repetition-penalty", min=0.01, help="Above 1 makes tokens already there less likely.")
    ] = None,
    tools: Annotated[
        Path | None, typer.Option("--tools", metavar="FILE", help="A JSON list of tools that the model may call.")
    ] = None,
    template: Annotated[
        Path | None, typer.Option("--template", metavar="FILE", help="A jinja chat template in the place of the model's.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text as it is, without the chat template.")] = False,
    no_speculate: Annotated[
        bool, typer.Option("--no-speculate", help="One traversal a token: guess none ahead. Guesses never change the text.")
    ] = False,
    trace: Annotated[bool, typer.Option("--trace", help="After the answer: where the time of a token went.")] = False,
    via: Annotated[
        str, typer.Option("--via", metavar="RIG", help="Have that rig run the token loop: over a slow link only text is sent.")
    ] = "",
    as_json: options.Json = False,
    swarm: options.Swarm = None,
    plan_file: options.PlanFile = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """Talk to the model. Without PROMPT at a terminal it is a conversation; with PROMPT, or text on standard input,
    one answer goes to standard output and nothing else does.

    What is not given comes from the model's generation_config.
    """
    if raw and (system or tools or template):
        raise UsageError("--raw has no template that --system or --tools could stand in: put it into the text")
    if via and (trace or template):
        raise UsageError("--via has the rig do what --trace would measure and --template would replace here: leave one of them out")
    question = _question(prompt)
    if question is None and as_json:
        raise UsageError("--json is one document for one answer: give PROMPT, or text on standard input")
    known = read_tools(_text(tools), str(tools)) if tools else ()
    stops = tuple(stop or ())
    plain_text(system or "")
    wishes = Wishes(system, temperature, top_p, top_k, repetition_penalty, seed, max_tokens, stops, raw, known, not no_speculate)
    own = {OWN_TEMPLATE: _text(template).encode()} if template else {}
    asked = Asked(options.target(swarm, key, key_file, plan_file), wishes, own, via, trace)
    if question is not None:
        asyncio.run(_once(asked, question, as_json))
        return
    terminal = Terminal()
    repl = Repl(terminal)
    terminal.serve(_converse(asked, repl), repl.stop_answer)


def _question(prompt: str | None) -> str | None:
    """PROMPT, else what standard input holds; None at a terminal, where questions are asked one by one."""
    if prompt is not None and prompt != "-":
        text = prompt
    elif prompt is None and sys.stdin.isatty():
        return None
    else:
        try:
            text = sys.stdin.read().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is no text in this locale's encoding ({error}): give it as UTF-8") from None
    if not plain_text(text).strip():
        raise UsageError("nothing is asked: give PROMPT, or text on standard input")
    return text


def _text(file: Path) -> str:
    try:
        return file.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read as UTF-8 text ({error}): give another file") from None


async def _once(asked: Asked, question: str, as_json: bool) -> None:
    async with _talking(asked) as (talk, tracer):
        async for piece in talk.ask(question):
            if not as_json:
                sys.stdout.write(piece.text)
                sys.stdout.flush()
        falls = await tracer.end(talk.answer) if tracer else None
        if as_json:
            output.print_json(_document(talk.answer, talk.calls if asked.wishes.tools else None, falls))
            return
        sys.stdout.write("".join(f"{said_call(call)}\n" for call in talk.calls) or "\n")
        sys.stdout.flush()
        show_timings(talk.answer, falls)
        await hint_at_via(asked.target, talk)


async def _converse(asked: Asked, repl: Repl) -> None:
    async with _talking(asked) as (talk, tracer):
        await repl.run(talk, tracer, lambda: hint_at_via(asked.target, talk))


@asynccontextmanager
async def _talking(asked: Asked) -> AsyncIterator[tuple[Talk | RovingTalk, Tracer | None]]:
    """A chat until the block ends, with its Decoder here or on the rig that was named."""
    if asked.via:
        async with talking_via(asked.via, asked.target, asked.wishes, _notify) as far:
            _say_what_it_is(far, asked.wishes)
            yield far, None
        return
    target = asked.target
    async with open_client(target.source(_notify), target.credentials, _notify, asked.own) as client:
        target.answered()
        talk = Talk(client, asked.wishes)
        _say_what_it_is(talk, asked.wishes)
        async with tracing(client, target, asked.trace) as tracer:
            try:
                yield talk, tracer
            finally:
                await talk.close()


def _say_what_it_is(talk: Talk | RovingTalk, wishes: Wishes) -> None:
    if talk.is_plain and not wishes.raw:
        _notify(f"{talk.model} brings no chat template, so it continues your text as it is, as with --raw")


def _notify(message: str) -> None:
    """News of the swarm (a rig lost, a plan changed), on a line of its own beside a half-written answer."""
    console = output.stderr()
    console.print(f"\n{message}" if console.is_terminal else message, style="yellow")


def _document(answer: Answer, calls: Sequence[ToolCall] | None, falls: tuple[Waterfall, ...] | None) -> dict[str, Any]:
    """The document of `chat --json`; `calls` only with --tools, `falls` only with --trace."""
    told = [{"id": call.id, "name": call.name, "arguments": call.values} for call in calls or ()]
    return {
        "text": answer.text,
        "tokens": list(answer.tokens),
        "logprobs": list(answer.logprobs),
        "finish_reason": answer.finish_reason,
        **({} if calls is None else {"tool_calls": told}),
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": len(answer.tokens),
            "total_tokens": answer.prompt_tokens + len(answer.tokens),
            "cached_tokens": answer.cached_tokens,
        },
        "timings": {
            "ttft_s": answer.ttft_s,
            "tokens_per_s": answer.tokens_per_s,
            "traversals": answer.traversals,
            "drafted": answer.drafted,
            "kept": answer.kept,
            "hops": list(answer.hops),
            **({} if falls is None else {"trace": trace_document(falls)}),
        },
    }
