"""Any other model's chat format: the jinja template of its checkpoint, rendered in a sandbox."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import NoReturn

from jinja2 import TemplateError, TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from swarm.client.asset import asset_object, special_text
from swarm.client.messages import Message, checked_chat
from swarm.client.shield import Shield
from swarm.client.tokenizer import Tokenizer
from swarm.errors import ModelError

_FAILURES = (TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
_QUESTION, _ANSWER = "swarmquestion", "swarmanswer"

Part = tuple[str, int | None]
"""Text between special tokens, or a special token's text and id."""


class JinjaFormat:
    """`ChatFormat` from a template, as transformers' `apply_chat_template` renders it.

    The rendered text is split at special tokens and each part between them is encoded by itself. What a person writes
    is shielded first: it never becomes a special token, nor completes one that the template began.
    """

    def __init__(self, template: str, assets: Mapping[str, bytes], tokenizer: Tokenizer) -> None:
        config = asset_object(assets, "tokenizer_config.json")
        self._tokenizer = tokenizer
        self._bos = special_text(config.get("bos_token")) or tokenizer.piece(tokenizer.bos_id)
        self._eos = special_text(config.get("eos_token")) or tokenizer.piece(tokenizer.eos_ids[0])
        # transformers' name for putting sentencepiece's leading space after special tokens, too.
        self._space_after_special = config.get("legacy") is not False
        self._shield = Shield(tokenizer.specials)
        try:
            self._template = _environment().from_string(template)
        except TemplateSyntaxError as error:
            raise ModelError(f"the model's chat template is no jinja ({error}): fix it, or use --raw") from None

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a whole chat whose last message is the user's; bos only where the template writes it.

        Raises:
            UsageError: see `checked_chat`.
            ModelError: the template refuses the chat (many know no system message), or fails.
        """
        return self._tokens(self._parts(checked_chat(messages)), beginning=True)

    def extend(self, tokens: Sequence[int], message: Message) -> list[int]:
        """The tokens so far, exactly, then what the template writes between an answer and the end of a next question."""
        chat = [Message(role="user", content=_QUESTION), Message(role="assistant", content=_ANSWER), *checked_chat([message])]
        parts = self._parts(chat)
        for index, (text, special) in enumerate(parts):
            if special is None and _ANSWER in text:
                rest = [(text.partition(_ANSWER)[2], None), *parts[index + 1 :]]
                return [*tokens, *self._tokens(self._turn(tokens, rest), beginning=False)]
        raise ModelError("the model's chat template leaves out what was answered, so a chat cannot go on: start a new one")

    def _turn(self, tokens: Sequence[int], parts: list[Part]) -> list[Part]:
        """The parts after an answer, with its end exactly once: the model's own, the template's, or else eos."""
        ended = bool(tokens) and tokens[-1] in self._tokenizer.eos_ids
        said = next((index for index, (text, _) in enumerate(parts) if text.strip()), len(parts))
        closes = said < len(parts) and parts[said][1] in self._tokenizer.eos_ids
        if closes:
            return parts[said + 1 :] if ended else parts
        return parts if ended else [(self._eos, self._tokenizer.eos_ids[0]), *parts]

    def _parts(self, chat: Sequence[Message]) -> list[Part]:
        shielded, sentinel = self._shield.cover(chat)
        try:
            text = self._template.render(
                messages=shielded,
                add_generation_prompt=True,
                bos_token=self._bos,
                eos_token=self._eos,
                tools=None,
                documents=None,
            )
        except _FAILURES as error:
            raise ModelError(f"the model's chat template refuses this chat ({error}): change the chat, or use --raw") from None
        return list(self._shield.split(text, sentinel))

    def _tokens(self, parts: Sequence[Part], beginning: bool) -> list[int]:
        tokens: list[int] = []
        for index, (text, special) in enumerate(parts):
            if special is not None:
                tokens.append(special)
            elif self._space_after_special or (beginning and index == 0):
                tokens += self._tokenizer.encode(text)
            else:
                tokens += self._tokenizer.encode_after(text)
        return tokens


class _GenerationTag(Extension):
    """`{% generation %}` marks what a model said, for training; it writes its body as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationTag]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


def _to_json(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
