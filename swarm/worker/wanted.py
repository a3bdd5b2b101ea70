"""Which weight files have the tensors of some parts, judged by the tensors' names: what to fetch before it is read.

It may name a file too many (never one too few that would matter: a file that is read and was not named is fetched then).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from swarm.weights.checkpoint import Checkpoint
from swarm.weights.entry import AnyHeader
from swarm.weights.file import WeightFile
from swarm.weights.gguf.header import GgufHeader
from swarm.weights.header import Header
from swarm.worker.holdings import Part

BLOCK = re.compile(r"(?:^|\.)(?:layers|blocks|blk|h)\.(\d+)\.")
EXPERT = re.compile(r"\.experts\.(\d+)\.")
MERGED = re.compile(r"experts|_exps")
EMBEDDING = re.compile(r"embed|embd|wte")


def wanted_bytes(checkpoint: Checkpoint, files: Mapping[str, WeightFile], parts: Iterable[Part]) -> dict[str, int]:
    """By file name, bytes of the tensors of these parts; files without any are left out."""
    wanted = {(p.kind, p.block, p.expert) for p in parts}
    kinds = {kind for kind, _, _ in wanted}
    blocks = {block for _, block, _ in wanted}
    with_experts = {block for kind, block, _ in wanted if kind == "expert"}

    def wants(tensor: str) -> bool:
        block = BLOCK.search(tensor)
        if block is None:
            return "head" in kinds or ("embedding" in kinds and EMBEDDING.search(tensor) is not None)
        number, expert = int(block[1]), EXPERT.search(tensor)
        if expert is not None:
            return ("expert", number, int(expert[1])) in wanted
        return number in (with_experts if MERGED.search(tensor) else blocks)

    found: dict[str, int] = {}
    for name, header in zip(files, checkpoint.headers, strict=True):
        found[name] = sum(size for tensor, size in _sizes(header).items() if wants(tensor))
    return {name: count for name, count in found.items() if count}


def _sizes(header: AnyHeader) -> dict[str, int]:
    """Bytes of each tensor of a file, under the names that the file gives them."""
    if isinstance(header, GgufHeader):
        return {name: tensor.num_bytes for name, tensor in header.tensors.items()}
    assert isinstance(header, Header)
    return {name: entry.num_bytes for name, entry in header.entries.items()}
