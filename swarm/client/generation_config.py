"""How a model's makers want its tokens drawn, from its `generation_config.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from swarm.client.asset import asset_object, eos_entry
from swarm.client.sampling import Sampling
from swarm.errors import ModelError, UsageError

NAME = "generation_config.json"


@dataclass(frozen=True)
class GenerationConfig:
    """Defaults for a chat; what a person asks for goes before them."""

    sampling: Sampling
    eos_ids: tuple[int, ...]
    """Token ids that the file names as ends of an answer; the tokenizer's own come on top (`Tokenizer.eos_ids` has all)."""

    @classmethod
    def from_assets(cls, assets: Mapping[str, bytes]) -> GenerationConfig:
        """Read the file, where there is one; what it leaves out is temperature 0.7 and no other restraint.

        `do_sample: false`, said outright, is temperature 0.

        Raises:
            ModelError: the file is no JSON object, or states something that makes no sense.
        """
        raw = asset_object(assets, NAME)
        fallback = Sampling()
        greedy = raw.get("do_sample") is False
        try:
            sampling = Sampling(
                temperature=0.0 if greedy else _number(raw, "temperature", fallback.temperature),
                top_p=fallback.top_p if greedy else _number(raw, "top_p", fallback.top_p),
                top_k=fallback.top_k if greedy else int(_number(raw, "top_k", fallback.top_k)),
                repetition_penalty=_number(raw, "repetition_penalty", fallback.repetition_penalty),
            )
        except UsageError as error:
            raise ModelError(f"{NAME} of the model is unusable ({error}): fix it in the model's folder") from None
        return cls(sampling, tuple(eos_entry(assets, NAME)))


def _number(raw: Mapping[str, object], key: str, default: float) -> float:
    value = raw.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ModelError(f"{NAME} states {key} as {value!r}, which is no number: fix it in the model's folder")
    return float(value)
