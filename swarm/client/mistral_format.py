"""Mistral's chat formats v1, v2 and v3, token for token as mistral-common 1.13 writes them.

    v1      <s> "[INST] system\\n\\nfirst [/INST]" "answer" </s> "[INST] second [/INST]"      all in quotes is text
    v2, v3  <s> [INST] "first" [/INST] "answer" </s> [INST] "system\\n\\nsecond" [/INST]      [INST] is a control token

    tools   ... [AVAILABLE_TOOLS] "[{...}]" [/AVAILABLE_TOOLS] [INST] "last question" [/INST]
            [TOOL_CALLS] "[{...}]" </s> [TOOL_RESULTS] "{...}" [/TOOL_RESULTS]

Each part in quotes is encoded by itself, so each begins with sentencepiece's leading space. v1 puts the system prompt
before the first question and knows no tools; v2 and v3 put system and tools to the last question. v2 tells results from
one another by the tool's name, and forgets calls and results from before the last question; v3 by the call's id.

In v2 and v3 no text gives a control token. v1 has no tokens for its brackets: a person who types `[INST]` writes what
the format writes, there as in mistral-common; `</s>` is plain text in all of them.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from swarm.client.call_form import ID_LENGTH, MISTRAL, CallForm, call_id
from swarm.client.messages import Message, ToolCall, checked_chat, checked_next, joined
from swarm.client.mistral_vocabulary import BEGIN, END
from swarm.client.spelling import calls_of
from swarm.client.tokenizer import Tokenizer
from swarm.client.tools import Tool
from swarm.errors import UsageError

_ID = re.compile(f"[a-zA-Z0-9]{{{ID_LENGTH}}}")


class MistralFormat:
    """`ChatFormat` for a Mistral tokenizer: v2 or v3 where it has control tokens for the brackets, else v1."""

    def __init__(self, tokenizer: Tokenizer, version2: bool = False) -> None:
        self._tokenizer = tokenizer
        begin = tokenizer.id_of(BEGIN)
        self._control = begin is not None and tokenizer.is_control(begin)
        self._version2 = version2
        self._knows_tools = self._control and "[AVAILABLE_TOOLS]" in tokenizer.specials
        self.call_form: CallForm | None = MISTRAL if self._knows_tools else None

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), documents: Sequence[Mapping[str, str]] = ()
    ) -> list[int]:
        """Token ids of a whole chat.

        Raises:
            UsageError: see `checked_chat`; tools for v1; documents; calls together with text; for v2, two results in a row.
        """
        chat = checked_chat(messages)
        if tools or any(message.tool_calls for message in chat):
            self._check_tools()
        if documents:
            raise UsageError("Mistral's formats v1 to v3 have no place for documents: put them into the question")
        system = joined(message for message in chat if message.role == "system")
        spoken = [message for message in chat if message.role != "system"]
        last = max(index for index, message in enumerate(spoken) if message.role == "user")
        with_system = last if self._control else 0
        tokens = list(self._tokenizer.opening)
        for index, message in enumerate(spoken):
            if message.role != "user":
                tokens += self._turn(message, forgotten=self._version2 and index < last)
                continue
            tokens += self._tools(tools) if index == last else []
            text = message.content
            tokens += self._question(f"{system}\n\n{text}" if system and index == with_system else text)
        self._check_results(spoken[last:])
        return tokens

    def extend(self, tokens: Sequence[int], messages: Sequence[Message]) -> list[int]:
        """The tokens so far, exactly, with a further question of the user, or with results of tools.

        System prompt and tools stay where the first `prompt` put them: v2 and v3 would move them to the last question,
        at the price of every token after the first.
        """
        follow = checked_next(messages)
        self._check_results(follow)
        ends = self._tokenizer.eos_ids
        said = [*tokens, *([] if tokens and tokens[-1] in ends else [ends[0]])]
        for message in follow:
            said += self._question(message.content) if message.role == "user" else self._turn(message, forgotten=False)
        return said

    def tool_calls(self, tokens: Sequence[int]) -> list[ToolCall] | None:
        """What an answer calls: `[TOOL_CALLS]` and a JSON list; None where it is text."""
        return calls_of(self.call_form, self._tokenizer, tokens)

    def _question(self, text: str) -> list[int]:
        if not self._control:
            return self._tokenizer.encode(f"{BEGIN} {text} {END}")
        return self._between(BEGIN, text, END)

    def _turn(self, message: Message, forgotten: bool) -> list[int]:
        """An answer, calls, or a result; `forgotten` is what v2 leaves out of calls and results."""
        if message.role == "tool":
            return [] if forgotten else self._between("[TOOL_RESULTS]", self._result(message), "[/TOOL_RESULTS]")
        if not message.tool_calls:
            shown = message.content.rstrip(" ") if self._control else message.content
            return [*self._tokenizer.encode(shown), self._tokenizer.eos_ids[0]]
        if message.content:
            raise UsageError("an answer in Mistral's format is text or tool calls, never both: leave one of them out")
        calls = json.dumps([self._call(call) for call in message.tool_calls], ensure_ascii=False)
        return [] if forgotten else self._between("[TOOL_CALLS]", calls, self._tokenizer.piece(self._tokenizer.eos_ids[0]))

    def _between(self, begin: str, text: str, end: str) -> list[int]:
        specials = self._tokenizer.specials
        if missing := [word for word in (begin, end) if word not in specials]:
            raise UsageError(f"this model's vocabulary has no {missing[0]}, so that it knows no tools: ask it without")
        return [specials[begin], *self._tokenizer.encode(text), specials[end]]

    def _tools(self, tools: Sequence[Tool]) -> list[int]:
        if not tools:
            return []
        documents = [
            {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)}}
            for t in tools
        ]
        return self._between("[AVAILABLE_TOOLS]", json.dumps(documents, ensure_ascii=False), "[/AVAILABLE_TOOLS]")

    def _call(self, call: ToolCall) -> dict[str, Any]:
        named: dict[str, Any] = {"name": call.name, "arguments": call.values}
        return named | ({"id": _short(call.id)} if call.id and not self._version2 else {})

    def _result(self, message: Message) -> str:
        content = _as_json(message.content)
        if self._version2:
            return json.dumps([{"name": message.name or None, "content": content}], ensure_ascii=False)
        if not message.tool_call_id:
            raise UsageError("the result of a tool names no call: give the call's id with it")
        return json.dumps({"content": content, "call_id": _short(message.tool_call_id)}, ensure_ascii=False)

    def _check_tools(self) -> None:
        if not self._knows_tools:
            raise UsageError("the model speaks Mistral's format v1, which has no tools: leave them out, or use an Instruct v0.3")

    def _check_results(self, messages: Sequence[Message]) -> None:
        roles = [message.role for message in messages]
        if self._version2 and ("tool", "tool") in itertools.pairwise(roles):
            raise UsageError("Mistral's format v2 takes one tool result for an answer: call one tool at a time")


def _short(name: str) -> str:
    """A call's id as v3 wants it: its own where it is one, else one made of it."""
    return name if _ID.fullmatch(name) else call_id(name)


def _as_json(content: str) -> Any:
    """A result that is JSON goes in as that, anything else as a text, nothing as an empty object."""
    try:
        return json.loads(content or "{}")
    except (ValueError, RecursionError):
        return content
