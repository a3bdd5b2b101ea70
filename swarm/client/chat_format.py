"""From a chat to token ids, in the format that the model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from swarm.client.call_form import CallForm
from swarm.client.chat_template import OWN_TEMPLATE, template_of
from swarm.client.jinja_format import JinjaFormat
from swarm.client.messages import Message, ToolCall
from swarm.client.mistral_format import MistralFormat
from swarm.client.mistral_vocabulary import is_mistral, speaks_mistral
from swarm.client.plain_format import PlainFormat
from swarm.client.renderer import Renderer
from swarm.client.tokenizer import Tokenizer
from swarm.client.tools import Tool


class ChatFormat(Protocol):
    """How a model wants to be asked."""

    @property
    def call_form(self) -> CallForm | None:
        """How the model writes tool calls; None where we know of no way."""
        ...

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), documents: Sequence[Mapping[str, str]] = ()
    ) -> list[int]:
        """Token ids, bos included, of a whole chat whose last message is the user's or a tool's; the answer follows.

        Args:
            documents: `title` and `text` of each, for the few templates that take them.

        Raises:
            UsageError: the messages are no such chat, or the format has no place for tools or documents.
            ModelError: the model's template refuses them.
        """
        ...

    def extend(self, tokens: Sequence[int], messages: Sequence[Message]) -> list[int]:
        """The tokens so far (prompt and answer) unchanged, the answer's end if it has none, and a further question, or
        the results of the tools that the answer called."""
        ...

    def tool_calls(self, tokens: Sequence[int]) -> list[ToolCall] | None:
        """What an answer calls; None where it calls nothing, or in no form that we know."""
        ...


def chat_format(assets: Mapping[str, bytes], tokenizer: Tokenizer) -> ChatFormat:
    """The chat format of a model: Mistral's own for its tokenizers, else the template that the model brings.

    A model with Mistral's vocabulary whose template does not speak of `[INST]` (or speaks Llama's dialect of it) was
    trained on that template. Without any template, Mistral's vocabulary alone says it where the files are as Mistral
    publishes them; a checkpoint in Hugging Face's layout (it has a tokenizer_config.json) without one is a base model,
    which goes on with text: `PlainFormat`, as for every other model that says nowhere how it wants to be asked.

    Raises:
        ModelError: a file of the model that should say so is broken.
    """
    template = template_of(assets)
    mistral = OWN_TEMPLATE not in assets and speaks_mistral(template) and is_mistral(tokenizer)
    if mistral and (template or "tokenizer_config.json" not in assets):
        return MistralFormat(tokenizer, version2=any(name.endswith(".v2") for name in assets))
    if template:
        return JinjaFormat(template, template_of(assets, with_tools=True), tokenizer, Renderer())
    return PlainFormat(tokenizer)
