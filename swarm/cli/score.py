"""`swarm score`: how likely the model finds a text.

The log-probability of each token of a text given those before it, and the perplexity. The text is taken as it is, its last
newline included, with bos before it where the model begins texts with it.

With `--json`: `{"tokens": [ids], "logprobs": [null, floats...], "perplexity", "model"}`; perplexity is exp of minus the mean of
the floats.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from swarm.cli import options, output
from swarm.client.client import open_client
from swarm.errors import UsageError


def score(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="A text file; `-` or nothing reads standard input.")] = "-",
    as_json: options.Json = False,
    swarm: options.Swarm = None,
    plan_file: options.PlanFile = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """The log-probability of each token of a text, given those before it, and the perplexity of the whole.

    The text is taken as it is, with bos before it where the model begins texts with it.
    """
    text = _read(file)
    target = options.target(swarm, key, key_file, plan_file)
    asyncio.run(_score(target, text, as_json))


def perplexity(logprobs: Sequence[float | None]) -> float:
    """exp of minus the mean log-probability, bos (whose is None) left out; infinity beyond what a float holds."""
    known = [p for p in logprobs if p is not None]
    mean = math.fsum(known) / len(known)
    try:
        return math.exp(-mean)
    except OverflowError:
        return math.inf


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).expanduser().read_bytes()
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read as UTF-8 text ({error}): give another file") from None
    if not text:
        raise UsageError(f"{'standard input' if file == '-' else file} is empty: there is nothing to score")
    return text


async def _score(target: options.Target, text: str, as_json: bool) -> None:
    async with open_client(target.source(), target.credentials) as client:
        tokens = [*client.tokenizer.opening, *client.tokenizer.encode(text)]
        logprobs = await client.score(tokens)
        total = perplexity(logprobs)
        if as_json:
            model = client.plan.model.name
            output.print_json({"tokens": tokens, "logprobs": logprobs, "perplexity": total, "model": model})
            return
        pieces = [client.tokenizer.piece(token) for token in tokens]
    console = output.stdout()
    console.print(_table(tokens, pieces, logprobs))
    console.print(f"perplexity {total:.4f} over {len(tokens) - 1} tokens")


def _table(tokens: Sequence[int], pieces: Sequence[str], logprobs: Sequence[float | None]) -> Table:
    table = Table("token", "id", "logprob", box=None, pad_edge=False, header_style="dim")
    for token, piece, logprob in zip(tokens, pieces, logprobs, strict=True):
        table.add_row(piece, str(token), "" if logprob is None else f"{logprob:.4f}")
    return table
