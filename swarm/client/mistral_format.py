"""Mistral's chat formats v1, v2 and v3, token for token as mistral-common 1.13 writes them.

    v1      <s> "[INST] system\\n\\nfirst [/INST]" "answer" </s> "[INST] second [/INST]"      all in quotes is text
    v2, v3  <s> [INST] "first" [/INST] "answer" </s> [INST] "system\\n\\nsecond" [/INST]      [INST] is a control token

Each part in quotes is encoded by itself, so each begins with sentencepiece's leading space. v1 puts the system prompt
before the first question, v2 and v3 before the last. v2 and v3 differ in tools only, which swarm does not send.

In v2 and v3 no text gives a control token. v1 has no tokens for its brackets: a person who types `[INST]` writes what
the format writes, there as in mistral-common; `</s>` is plain text in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarm.client.messages import Message, checked_chat, joined
from swarm.client.tokenizer import Tokenizer

BEGIN, END = "[INST]", "[/INST]"


class MistralFormat:
    """`ChatFormat` for a Mistral tokenizer: v2 and v3 where it has control tokens for the brackets, else v1."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        begin = tokenizer.id_of(BEGIN)
        self._control = begin is not None and tokenizer.is_control(begin)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a whole chat whose last message is the user's; see `checked_chat` for what it raises."""
        chat = checked_chat(messages)
        system = joined(message for message in chat if message["role"] == "system")
        spoken = [message for message in chat if message["role"] != "system"]
        with_system = len(spoken) - 1 if self._control else 0
        tokens = [self._tokenizer.bos_id]
        for index, message in enumerate(spoken):
            if message["role"] == "assistant":
                tokens += self._answer(message["content"])
            else:
                text = message["content"]
                tokens += self._question(f"{system}\n\n{text}" if system and index == with_system else text)
        return tokens

    def extend(self, tokens: Sequence[int], message: Message) -> list[int]:
        """The tokens so far, exactly, with a further question of the user.

        A system prompt stays where the first `encode` put it: v2 and v3 would move it to the last question, at the
        price of every token after the first.
        """
        checked_chat([message])
        end = [] if tokens and tokens[-1] in self._tokenizer.eos_ids else [self._tokenizer.eos_ids[0]]
        return [*tokens, *end, *self._question(message["content"])]

    def _question(self, text: str) -> list[int]:
        if not self._control:
            return self._tokenizer.encode(f"{BEGIN} {text} {END}")
        specials = self._tokenizer.specials
        return [specials[BEGIN], *self._tokenizer.encode(text), specials[END]]

    def _answer(self, text: str) -> list[int]:
        shown = text.rstrip(" ") if self._control else text
        return [*self._tokenizer.encode(shown), self._tokenizer.eos_ids[0]]


def is_mistral(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary is Mistral's (v1, v2 or v3) or has its brackets as pieces, as the embedded model's has."""
    if "[SYSTEM_PROMPT]" in tokenizer.specials:  # v7 and later put the system prompt elsewhere
        return False
    if tokenizer.id_of(BEGIN) is not None and tokenizer.id_of(END) is not None:
        return True
    # v1 has no piece of its own that tells it from Llama's 32000; these two stand at other ids there.
    return tokenizer.piece(28705) == "▁" and tokenizer.piece(260) == "▁▁▁▁"
