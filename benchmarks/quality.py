"""What few bits cost: the embedded model in each dtype beside itself in fp32, on its recorded questions and stories.

    python -m benchmarks.quality [--every 1] [--dtype int4/32 --dtype ...] [--gguf PATH]

Each line: KL a token (nats) of the fp32 distribution from the dtype's, over prompts and reference answers; perplexity of those
tokens; at how many positions of the answers the best token is another one; and GiB of the whole model. Below it, KL by category of
question, and what quantizing did to the matrices of each role. `rounded` is plain rounding between each group's least and greatest
weight: what the search for scales is measured against. `--gguf` adds a file, or those of a folder, as rivals: the same model, kept
in the codes of the file.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import torch
from torch import Tensor

from swarm.bits import Bits
from swarm.config import Sizes
from swarm.model.block import Block
from swarm.model.cache import PagedCache
from swarm.model.dtypes import numbers_of
from swarm.model.experts import LocalExperts
from swarm.model.rows import Rows, Segment
from swarm.model.stage import Stage
from swarm.weights import matrices
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.load import Loader
from swarm.weights.losses import said
from swarm.weights.own_dtype import own_dtype
from swarm.weights.quantize import rounded

DATA = Path(__file__).parent.parent / "tests" / "data"
EMBEDDED = Path(str(files("swarm.models") / "nano-mixtral"))
LONGEST = 512
DTYPES = ("bf16", "int8", "int8/32", "int4/32", "int4", "int4/128", "int4+attention=int8", "int4+head=int4")


@dataclass(frozen=True)
class Text:
    """A prompt, the answer that was recorded for it, and what kind of question it is."""

    category: str
    prompt: list[int]
    answer: list[int]


def texts(every: int) -> list[Text]:
    """The questions, and every story."""
    lines = (DATA / "eval.jsonl").read_text().splitlines()[::every] + (DATA / "stories.jsonl").read_text().splitlines()
    return [Text(raw["category"], raw["prompt_tokens"], raw["reference_tokens"]) for raw in map(json.loads, lines)]


@dataclass(frozen=True)
class Way:
    """One way to keep the model.

    Args:
        dtype: as a Plan names it.
        where: its files; None: the embedded model.
        rounded: quantized by plain rounding.
    """

    name: str
    dtype: str
    where: Path = EMBEDDED
    rounded: bool = False

    @contextmanager
    def loader(self) -> Iterator[Loader]:
        checkpoint, bits = Checkpoint.open(self.where), Bits.of(self.dtype)
        loader = Loader(checkpoint, numbers_of(self.dtype), bits=bits)
        with patch.object(matrices, "in_pieces", lambda w, form, *_: iter([rounded(w, form)])) if self.rounded else nullcontext():
            yield loader


def ways(dtypes: Sequence[str], gguf: Path | None) -> Iterator[Way]:
    """What is compared."""
    for dtype in dtypes:
        yield Way(dtype, dtype)
        if Bits.of(dtype).experts.kind == "int4":
            yield Way(f"{dtype} rounded", dtype, rounded=True)
    files = sorted(gguf.glob("*.gguf")) if gguf and gguf.is_dir() else [gguf] if gguf else []
    for path in files:
        yield Way(path.stem, own_dtype(Checkpoint.open(path)), path)


def stage_of(loader: Loader) -> Stage:
    """The whole model."""
    config = loader.checkpoint.config
    experts = LocalExperts({(b, e): loader.expert(b, e) for b in range(config.num_blocks) for e in range(config.num_experts)})
    ports = dict.fromkeys(range(config.num_experts), experts)
    blocks = {b: Block.of(config, b, loader.core(b), ports) for b in range(config.num_blocks)}
    return Stage(config, blocks, loader.embedding(), loader.head())


def distributions(stage: Stage, dtype: torch.dtype, asked: list[Text]) -> Iterator[Tensor]:
    """log-probabilities [n, V] fp32 after each token of each text."""
    with torch.inference_mode():
        for text in asked:
            tokens = (text.prompt + text.answer)[:LONGEST]
            cache = PagedCache(stage.config, LONGEST // 32, 32, dtype)
            for block in stage.blocks:
                cache.add_block(block)
            assert cache.reserve(b"", len(tokens))
            h = stage.forward(stage.embed(tokens), Rows.of((Segment(b"", 0, len(tokens), 0),)), cache)
            yield torch.log_softmax(stage.logits(h).float(), -1)


def compare(truth: list[Tensor], found: Iterator[Tensor], asked: list[Text]) -> tuple[str, str]:
    """One line of figures over all, and one of KL a token by category."""
    kinds: defaultdict[str, list[float]] = defaultdict(list)
    divergence, surprise, positions, scored, other, answered = 0.0, 0.0, 0, 0, 0, 0
    for right, got, text in zip(truth, found, asked, strict=True):
        lost = (right.exp() * (right - got)).sum(-1)
        kinds[text.category] += lost.tolist()
        divergence += float(lost.sum())
        tokens = torch.tensor((text.prompt + text.answer)[:LONGEST])
        surprise -= float(got[:-1].gather(1, tokens[1:, None]).sum())
        answers = slice(len(text.prompt) - 1, len(tokens) - 1)
        other += int((got[answers].argmax(-1) != right[answers].argmax(-1)).sum())
        positions, scored, answered = positions + len(tokens), scored + len(tokens) - 1, answered + len(right[answers])
    perplexity = torch.tensor(surprise / scored).exp()
    by_kind = ", ".join(f"{kind} {fmean(each):.6f}" for kind, each in kinds.items())
    return f"KL {divergence / positions:.6f}   perplexity {perplexity:.4f}   another best token at {other} of {answered}", by_kind


def main() -> None:
    """Print some lines a dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="of the questions, take every so many")
    parser.add_argument("--dtype", action="append", help=f"again for more; by default {', '.join(DTYPES)}")
    parser.add_argument("--gguf", type=Path, help="a GGUF file of the same model, or a folder of them")
    given = parser.parse_args()
    asked = texts(given.every)
    truth = list(distributions(stage_of(Loader(Checkpoint.open(EMBEDDED), torch.float32)), torch.float32, asked))
    for way in ways(given.dtype or DTYPES, given.gguf):
        with way.loader() as loader:
            stage = stage_of(loader)
        size = Sizes(stage.config, way.dtype).weights / 2**30
        found = distributions(stage, numbers_of(way.dtype), asked)
        line, by_kind = compare(truth, found, asked)
        print(f"{way.name:34} {line}   {size:.4f} GiB\n    KL by category: {by_kind}", flush=True)
        for line in filter(None, said(loader.losses).split("; ")):
            print(f"    {line}")


if __name__ == "__main__":
    main()
