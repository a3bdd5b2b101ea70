"""An answer's text with its control tokens spelt out, for those who look for tool calls in it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from swarm.client.call_form import CallForm
from swarm.client.messages import ToolCall
from swarm.client.tokenizer import Tokenizer


def spelt(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """The text of tokens, those that never show as the vocabulary has them; without what ends the answer."""
    said = list(tokens)
    while said and said[-1] in tokenizer.eos_ids:
        said.pop()
    groups = itertools.groupby(said, tokenizer.is_control)
    return "".join("".join(map(tokenizer.piece, run)) if control else tokenizer.decode(list(run)) for control, run in groups)


def calls_of(form: CallForm | None, tokenizer: Tokenizer, tokens: Sequence[int]) -> list[ToolCall] | None:
    """The tool calls of an answer; None where it has none, or is of no form that we know."""
    return form.parse(spelt(tokenizer, tokens)) if form is not None else None


class HeldCalls:
    """An answer's text as it comes, without what may be a tool call: the end of the answer tells."""

    def __init__(self, form: CallForm | None, tokenizer: Tokenizer) -> None:
        self._form = form
        self._tokenizer = tokenizer
        self._text = ""
        self._shown = 0
        self._calls = False

    def push(self, token: int, text: str) -> str:
        """Take a token (-1 for none) and the text that it made certain: the text to show now."""
        self._text += text
        if self._form is None:
            return self._up_to(len(self._text))
        if token >= 0 and self._tokenizer.is_control(token) and self._tokenizer.piece(token) in self._form.openings:
            self._calls = True
        return "" if self._calls else self._up_to(self._form.certain(self._text))

    def finish(self) -> str:
        """What was held back, for an answer that called nothing."""
        return self._up_to(len(self._text))

    def _up_to(self, end: int) -> str:
        text = self._text[self._shown : end]
        self._shown = max(self._shown, end)
        return text
