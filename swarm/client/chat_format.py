"""From a chat to token ids, in the format that the model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from swarm.client.asset import asset_object
from swarm.client.jinja_format import JinjaFormat
from swarm.client.messages import Message
from swarm.client.mistral_format import BEGIN, MistralFormat, is_mistral
from swarm.client.tokenizer import Tokenizer
from swarm.errors import ModelError

__all__ = ["ChatFormat", "Message", "chat_format"]


class ChatFormat(Protocol):
    """How a model wants to be asked."""

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids, bos included, of a whole chat whose last message is the user's; the model's answer follows.

        Raises:
            UsageError: the messages are no such chat.
            ModelError: the model's template refuses them.
        """
        ...

    def extend(self, tokens: Sequence[int], message: Message) -> list[int]:
        """The tokens so far (prompt and answer) unchanged, the answer's end if it has none, and a further question."""
        ...


def chat_format(assets: Mapping[str, bytes], tokenizer: Tokenizer) -> ChatFormat:
    """The chat format of a model: Mistral's own for its tokenizers, else the template that the model brings.

    A model with Mistral's vocabulary whose template does not speak of `[INST]` (or speaks Llama's dialect of it) was
    trained on that template.

    Raises:
        ModelError: the model says nowhere how it wants to be asked, or its template cannot be read.
    """
    template = _template(assets)
    if is_mistral(tokenizer) and (not template or (BEGIN in template and "<<SYS>>" not in template)):
        return MistralFormat(tokenizer)
    if template:
        return JinjaFormat(template, assets, tokenizer)
    raise ModelError("the model brings no chat template, so it cannot chat: use --raw to have it continue your text as it is")


def _template(assets: Mapping[str, bytes]) -> str:
    """The template's source: a file of its own, or in tokenizer_config.json (one, or several by name); empty if none."""
    if "chat_template.jinja" in assets:
        return assets["chat_template.jinja"].decode("utf-8", "replace")
    found = asset_object(assets, "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else ""
