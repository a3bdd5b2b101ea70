"""What few bits cost: the embedded model in each dtype beside itself in fp32, on its recorded questions and stories.

    python -m benchmarks.quality [--every 1]

Each line: KL a token (nats) of the fp32 distribution from the dtype's, over prompts and reference answers; perplexity of those
tokens; and at how many positions of the answers the best token is another one. `rounded` is int4 of plain rounding between each
group's least and greatest weight: what the search for scales is measured against.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from swarm.model.block import Block
from swarm.model.cache import PagedCache
from swarm.model.dtypes import TORCH_DTYPES
from swarm.model.experts import LocalExperts
from swarm.model.rows import Rows, Segment
from swarm.model.stage import Stage
from swarm.weights import load
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.quantize import rounded_int4

DATA = Path(__file__).parent.parent / "tests" / "data"
LONGEST = 512


@dataclass(frozen=True)
class Text:
    """A prompt and the answer that was recorded for it."""

    prompt: list[int]
    answer: list[int]


def texts(every: int) -> list[Text]:
    """The questions, and every story."""
    lines = (DATA / "eval.jsonl").read_text().splitlines()[::every] + (DATA / "stories.jsonl").read_text().splitlines()
    return [Text(raw["prompt_tokens"], raw["reference_tokens"]) for raw in map(json.loads, lines)]


def distributions(dtype: str, asked: list[Text]) -> Iterator[Tensor]:
    """log-probabilities [n, V] fp32 after each token of each text."""
    with torch.inference_mode():
        stage = _stage(dtype)
        for text in asked:
            tokens = torch.tensor((text.prompt + text.answer)[:LONGEST])
            cache = PagedCache(stage.config, LONGEST // 32, 32, TORCH_DTYPES[dtype])
            for block in stage.blocks:
                cache.add_block(block)
            assert cache.reserve(b"", len(tokens))
            h = stage.forward(stage.embed(tokens), Rows.of((Segment(b"", 0, len(tokens), 0),)), cache)
            yield torch.log_softmax(stage.logits(h), -1)


def _stage(dtype: str) -> Stage:
    quantized = dtype if dtype.startswith("int") else ""
    folder = Path(str(files("swarm.models") / "nano-mixtral"))
    loader = load.Loader(Checkpoint.open(folder), TORCH_DTYPES[dtype], quantized=quantized)
    config = loader.checkpoint.config
    experts = LocalExperts({(b, e): loader.expert(b, e) for b in range(config.num_blocks) for e in range(config.num_experts)})
    ports = dict.fromkeys(range(config.num_experts), experts)
    blocks = {b: Block.of(config, b, loader.core(b), ports) for b in range(config.num_blocks)}
    return Stage(config, blocks, loader.embedding(), loader.head())


def compare(truth: list[Tensor], found: Iterator[Tensor], asked: list[Text]) -> str:
    """One line of figures."""
    divergence, surprise, positions, scored, other, answered = 0.0, 0.0, 0, 0, 0, 0
    for right, got, text in zip(truth, found, asked, strict=True):
        divergence += float((right.exp() * (right - got)).sum())
        tokens = torch.tensor((text.prompt + text.answer)[:LONGEST])
        surprise -= float(got[:-1].gather(1, tokens[1:, None]).sum())
        answers = slice(len(text.prompt) - 1, len(tokens) - 1)
        other += int((got[answers].argmax(-1) != right[answers].argmax(-1)).sum())
        positions, scored, answered = positions + len(tokens), scored + len(tokens) - 1, answered + len(right[answers])
    perplexity = torch.tensor(surprise / scored).exp()
    return f"KL {divergence / positions:.6f}   perplexity {perplexity:.4f}   another best token at {other} of {answered}"


def main() -> None:
    """Print a line a dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="of the questions, take every so many")
    asked = texts(parser.parse_args().every)
    truth = list(distributions("fp32", asked))
    for dtype in ("fp32", "bf16", "int8", "int4"):
        print(f"{dtype:14} {compare(truth, distributions(dtype, asked), asked)}", flush=True)
    with patch.object(load, "quantize_int4", rounded_int4):
        print(f"{'int4 rounded':14} {compare(truth, distributions('int4', asked), asked)}", flush=True)


if __name__ == "__main__":
    main()
