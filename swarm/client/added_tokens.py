"""What a checkpoint's small files say of its special tokens, whichever kind its tokenizer is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from swarm.client.asset import asset_object, eos_entry, special_text
from swarm.client.chat_template import TURN_ENDS, template_of
from swarm.errors import ModelError

CONFIG = "tokenizer_config.json"


@dataclass(frozen=True)
class AddedToken:
    """A token beside the trained vocabulary; a special one never shows in text."""

    content: str
    special: bool
    lstrip: bool = False
    """Whether it takes the white space before it in."""
    rstrip: bool = False


def added_tokens(assets: Mapping[str, bytes]) -> dict[int, AddedToken]:
    """`added_tokens_decoder` of tokenizer_config.json, by id.

    Raises:
        ModelError: it has no form that we know.
    """
    raw = asset_object(assets, CONFIG).get("added_tokens_decoder") or {}
    try:
        return {int(i): _added(entry) for i, entry in raw.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ModelError(f"{CONFIG} lists added_tokens_decoder in no form that swarm knows: fetch it again") from None


def named_tokens(assets: Mapping[str, bytes]) -> dict[str, str]:
    """The texts of bos_token, eos_token and their like, by these names."""
    named: dict[str, str] = {}
    for name in ("special_tokens_map.json", CONFIG):
        raw = asset_object(assets, name)
        named |= {key: text for key, value in raw.items() if key.endswith("_token") and (text := special_text(value))}
    return named


def eos_ids(assets: Mapping[str, bytes], id_of: Callable[[str], int | None]) -> tuple[int, ...]:
    """All tokens that end an answer: the one that the tokenizer's config names first, then those of generation_config and
    config, then those that end turns in the chat template."""
    named = named_tokens(assets).get("eos_token")
    ids = [id_of(named)] if named else []
    for name in ("generation_config.json", "config.json"):
        ids += eos_entry(assets, name)
    templates = template_of(assets) + template_of(assets, with_tools=True)
    ids += [id_of(end) for end in TURN_ENDS if end in templates]
    return tuple(dict.fromkeys(i for i in ids if i is not None and i >= 0))


def _added(entry: Mapping[str, object]) -> AddedToken:
    content = str(entry["content"])
    return AddedToken(content, bool(entry.get("special")), bool(entry.get("lstrip")), bool(entry.get("rstrip")))
