"""Where a checkpoint keeps its chat template, and which of its tokens end an answer."""

from __future__ import annotations

from collections.abc import Mapping

from swarm.client.asset import asset_object

OWN_TEMPLATE = "own_template.jinja"
"""The name among a model's small files of a template that a person gives in the place of the model's."""
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|return|>", "<|call|>", "<|end_of_turn|>", "<end_of_turn>")
"""Special tokens that end an answer wherever a template writes them."""
PART_ENDS = ("<|end|>",)
"""Those that end a part of an answer, and stand for its end where the answer is written down: gpt-oss's."""


def template_of(assets: Mapping[str, bytes], with_tools: bool = False) -> str:
    """The template's source; empty where the model has none.

    As in transformers, a file `chat_template.jinja` goes before `chat_template` in tokenizer_config.json, which may
    be several by name: `tool_use` where there are tools, else `default`. Last, a processor's chat_template.json.

    Raises:
        ModelError: one of the files is no JSON object.
    """
    for name in (OWN_TEMPLATE, "chat_template.jinja"):
        if name in assets:
            return assets[name].decode("utf-8", "replace")
    for name in ("tokenizer_config.json", "chat_template.json"):
        found = asset_object(assets, name).get("chat_template")
        if isinstance(found, list):
            named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
            found = (named.get("tool_use") if with_tools else None) or named.get("default")
        if isinstance(found, str) and found:
            return found
    return ""
