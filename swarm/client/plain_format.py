"""No chat format at all: text goes on as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swarm.client.call_form import CallForm
from swarm.client.messages import Message, ToolCall, joined
from swarm.client.tokenizer import Tokenizer
from swarm.client.tools import Tool
from swarm.errors import UsageError


class PlainFormat:
    """`ChatFormat` for `--raw`, and for models that were trained on no chat."""

    call_form: CallForm | None = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), documents: Sequence[Mapping[str, str]] = ()
    ) -> list[int]:
        """The user's text behind bos, where the model begins texts with it. Raises UsageError: there is anything else."""
        if tools or documents or {message.role for message in messages} != {"user"}:
            raise UsageError(
                "without a chat template there is no place for --system, --tools or earlier turns: put all of it into the text"
            )
        return [*self._tokenizer.opening, *self._tokenizer.encode(joined(messages))]

    def extend(self, tokens: Sequence[int], messages: Sequence[Message]) -> list[int]:
        """The tokens so far and the text right behind them."""
        return [*tokens, *self._tokenizer.encode_after(joined(messages))]

    def tool_calls(self, tokens: Sequence[int]) -> list[ToolCall] | None:
        """None."""
        return None
