"""`swarm experts`: what the routers chose, and where those experts are.

What the routers chose since each Block came to its Worker, a Block a line: the share of each expert in percent, coloured by how
hot it is where a terminal shows it. `>` stands behind an expert that another Worker holds for the owner, `+` behind one that the
owner and another Worker hold; behind the line stands who. Beyond 32 experts each is one digit, 9 for the hottest of its Block.
Where nothing was counted yet it says so.

With `--json`: `{"epoch", "model", "blocks": [{"block", "route", "worker", "counts": [chosen], "shares": [floats], "away":
{"expert": worker}, "copies": {"expert": worker}}]}`.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from swarm.cli import options, output
from swarm.cli.block_counts import BlockCounts, block_counts
from swarm.cli.heat_map import heat_map, one_block
from swarm.cli.status import ask
from swarm.errors import UsageError

NOTHING = (
    "no router has chosen anything yet: ask something with `swarm chat` and look again "
    "(each Worker counts while it serves, and a model without experts has nothing to count)"
)


def experts(
    block: Annotated[int | None, typer.Option("--block", metavar="N", min=0, help="This Block only, an expert a line.")] = None,
    as_json: options.Json = False,
    swarm: options.Swarm = None,
    plan_file: options.PlanFile = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """What the routers chose, a Block a line, as a heat map: shares in percent; `>` held elsewhere, `+` copied elsewhere."""
    document = asyncio.run(ask(options.target(swarm, key, key_file, plan_file)))
    blocks = block_counts(document)
    if blocks and block is not None:
        blocks = _only(blocks, block)
    if as_json:
        output.print_json(_document(document, blocks))
    elif not blocks:
        output.stdout().print(NOTHING)
    elif block is None:
        output.stdout().print(heat_map(blocks))
    else:
        for each in blocks:
            output.stdout().print(one_block(each))


def _only(blocks: list[BlockCounts], number: int) -> list[BlockCounts]:
    """The Block of that number, once a Route. Raises UsageError where nothing was counted of it."""
    found = [b for b in blocks if b.block == number]
    if not found:
        raise UsageError(f"--block {number}: choices were counted for the blocks {', '.join(str(b.block) for b in blocks)}")
    return found


def _document(document: dict[str, Any], blocks: list[BlockCounts]) -> dict[str, Any]:
    return {"epoch": document.get("epoch", 0), "model": document.get("model", ""), "blocks": [b.to_json() for b in blocks]}
