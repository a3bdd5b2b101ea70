"""A model's small JSON files, as they came from the swarm."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from swarm.errors import ModelError


def asset_object(assets: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """The JSON object in an asset; empty where the model has no such file.

    Raises:
        ModelError: the file is there and holds no JSON object.
    """
    if name not in assets:
        return {}
    try:
        raw = json.loads(assets[name])
    except (ValueError, RecursionError):
        raise ModelError(f"{name} of the model is not JSON: fetch it again") from None
    if not isinstance(raw, dict):
        raise ModelError(f"{name} of the model is not a JSON object: fetch it again")
    return raw


def eos_entry(assets: Mapping[str, bytes], name: str) -> list[int]:
    """`eos_token_id` of a JSON asset: a number, a list or nothing."""
    value = asset_object(assets, name).get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(i, bool) or not isinstance(i, int) for i in ids):
        raise ModelError(f"{name} states eos_token_id as {value!r}, which is no token id: fetch it again")
    return ids


def special_text(entry: object) -> str:
    """The text of `bos_token` or `eos_token` in tokenizer_config.json: a string, or an object with `content`."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else ""
