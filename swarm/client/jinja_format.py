"""Any other model's chat format: the jinja template of its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swarm.client.call_form import CallForm, form_of_template
from swarm.client.chat_template import PART_ENDS
from swarm.client.messages import Message, ToolCall, checked_chat, checked_next
from swarm.client.renderer import Renderer
from swarm.client.shield import Shield
from swarm.client.spelling import calls_of
from swarm.client.tokenizer import Tokenizer
from swarm.client.tools import Tool
from swarm.errors import ModelError

_QUESTION, _ANSWER = "swarmquestion", "swarmanswer"

Part = tuple[str, int | None]
"""Text between special tokens, or a special token's text and id."""


class JinjaFormat:
    """`ChatFormat` from a template, as transformers' `apply_chat_template` renders it.

    The rendered text is split at special tokens and each part between them is encoded by itself. What a person writes
    is shielded first: it never becomes a control token, nor completes one that the template began.
    """

    def __init__(self, template: str, tool_template: str, tokenizer: Tokenizer, renderer: Renderer) -> None:
        """`tool_template` is the one for chats with tools; often the same."""
        self._tokenizer = tokenizer
        self._template, self._tool_template = template, tool_template
        self._renderer = renderer
        controls = {text for text, token in tokenizer.specials.items() if tokenizer.is_control(token)}
        self._shield = Shield(tokenizer.specials, controls, tokenizer.swallows)
        self.call_form: CallForm | None = form_of_template(tool_template)

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), documents: Sequence[Mapping[str, str]] = ()
    ) -> list[int]:
        """Token ids of a whole chat; bos only where the template writes it.

        Raises:
            UsageError: see `checked_chat`.
            ModelError: the template refuses the chat (many know no system message), fails, or takes too long.
        """
        return self._tokens(self._parts(checked_chat(messages), tools, documents), beginning=True)

    def extend(self, tokens: Sequence[int], messages: Sequence[Message]) -> list[int]:
        """The tokens so far, exactly, then what the template writes between an answer and the end of what was said next."""
        follow = checked_next(messages)
        parts = self._parts([Message("user", _QUESTION), _an_answer(follow), *follow])
        at = next((i for i, (text, special) in enumerate(parts) if special is None and _ANSWER in text), None)
        if at is None:
            raise ModelError("the model's chat template leaves out what was answered, so a chat cannot go on: start a new one")
        if follow[0].role == "tool":  # the rest of the call, its JSON's end and more, the model wrote itself
            rest = parts[self._end_behind(parts, at) :]
        else:
            rest = [(parts[at][0].partition(_ANSWER)[2], None), *parts[at + 1 :]]
        return [*tokens, *self._tokens(self._turn(tokens, rest), beginning=False)]

    def tool_calls(self, tokens: Sequence[int]) -> list[ToolCall] | None:
        """What an answer calls, in the form that the template shows."""
        return calls_of(self.call_form, self._tokenizer, tokens)

    def _end_behind(self, parts: Sequence[Part], at: int) -> int:
        ends = (i for i in range(at, len(parts)) if parts[i][1] in self._tokenizer.eos_ids)
        found = next(ends, None)
        if found is None:
            raise ModelError("the model's chat template does not show where a tool call ends: ask again without tools")
        return found

    def _turn(self, tokens: Sequence[int], parts: list[Part]) -> list[Part]:
        """The parts after an answer, with its end exactly once: the model's own, the template's, or else eos."""
        ends = self._tokenizer.eos_ids
        ended = bool(tokens) and tokens[-1] in ends
        said = next((index for index, (text, _) in enumerate(parts) if text.strip()), len(parts))
        text, special = parts[said] if said < len(parts) else ("", None)
        closes = special in ends or (special is not None and text in PART_ENDS)
        if closes:
            return parts[said + 1 :] if ended else parts
        return parts if ended or not ends else [(self._tokenizer.piece(ends[0]), ends[0]), *parts]

    def _parts(
        self, chat: Sequence[Message], tools: Sequence[Tool] = (), documents: Sequence[Mapping[str, str]] = ()
    ) -> list[Part]:
        values = {
            "messages": [_document(message) for message in chat],
            "tools": [dict(tool.document) for tool in tools] or None,
            "documents": [dict(document) for document in documents] or None,
        }
        covered, mark = self._shield.cover(values)
        template = self._tool_template if tools else self._template
        text = self._renderer.render(template, {**self._tokenizer.named, **covered, "add_generation_prompt": True})
        return list(self._shield.split(text, mark))

    def _tokens(self, parts: Sequence[Part], beginning: bool) -> list[int]:
        tokens: list[int] = []
        for index, (text, special) in enumerate(parts):
            if special is not None:
                tokens.append(special)
            elif beginning and index == 0:
                tokens += self._tokenizer.encode(text)
            else:
                tokens += self._tokenizer.encode_after_special(text)
        return tokens


def _an_answer(follow: Sequence[Message]) -> Message:
    """An answer that what follows could follow, with a word to find it by."""
    if follow[0].role != "tool":
        return Message("assistant", _ANSWER)
    return Message("assistant", tool_calls=tuple(ToolCall(m.name, f'{{"{_ANSWER}": 0}}', m.tool_call_id) for m in follow))


def _document(message: Message) -> dict[str, Any]:
    """A message as templates know it: what it does not have is not there, and calls without text have null for it."""
    document: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        document["content"] = message.content or None
        document["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.values}}
            for call in message.tool_calls
        ]
    document |= {key: value for key, value in (("tool_call_id", message.tool_call_id), ("name", message.name)) if value}
    return document
