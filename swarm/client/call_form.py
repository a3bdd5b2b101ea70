"""How models write down that they call tools, and what they wrote, read.

Mistral v2, v3  [TOOL_CALLS] [{"name": "f", "arguments": {...}}, ...]
Hermes, Qwen    <tool_call> {"name": "f", "arguments": {...}} </tool_call>, any number of them after any text
Llama 3.1       {"name": "f", "parameters": {...}}, perhaps behind <|python_tag|>
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swarm.client.messages import ToolCall

ID_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH = 9


@dataclass(frozen=True)
class CallForm:
    """One way of writing calls."""

    openings: tuple[str, ...]
    """Texts (or control tokens, as the vocabulary spells them) that calls begin with."""
    parse: Callable[[str], list[ToolCall] | None]
    """What an answer's text calls, control tokens spelt out; None where it is something else."""
    leads: bool = True
    """Whether calls come first in an answer, or never."""

    def certain(self, text: str) -> int:
        """How many characters of an answer, as far as it came, are no calls for certain."""
        if self.leads:
            begun = text.lstrip()
            may_be = any(begun.startswith(opening) or opening.startswith(begun) for opening in self.openings)
            return 0 if may_be else len(text)
        found = [at for opening in self.openings if (at := text.find(opening)) >= 0]
        if found:
            return min(found)
        partial = (n for o in self.openings for n in range(len(o) - 1, 0, -1) if text.endswith(o[:n]))
        return len(text) - max(partial, default=0)


def call_id(of: str, number: int = 0) -> str:
    """Nine letters and digits, as Mistral's formats want them; the same for the same call, so that a seed repeats a chat."""
    value = int.from_bytes(hashlib.blake2b(f"{number}:{of}".encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    return "".join(ID_LETTERS[value // 62**place % 62] for place in range(ID_LENGTH))


def _mistral(text: str) -> list[ToolCall] | None:
    head, opening, body = text.partition("[TOOL_CALLS]")
    found = _values(body) if opening and not head.strip() else None
    if found is None or len(found) != 1 or not isinstance(found[0], list):
        return None
    return _calls(found[0], ("arguments",))


_HERMES_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


def _hermes(text: str) -> list[ToolCall] | None:
    values: list[object] = []
    for body in _HERMES_CALL.findall(text):
        found = _values(body)
        if found is None:
            return None
        values += found
    return _calls(values, ("arguments",))


def _llama(text: str) -> list[ToolCall] | None:
    body = text.strip().removeprefix("<|python_tag|>")
    found = _values(body) if body.lstrip().startswith("{") else None
    return None if found is None else _calls(found, ("parameters", "arguments"))


_HARMONY_CALL = re.compile(r"\bto=functions\.([\w.-]+)[^{]*<\|message\|>(.*)", re.DOTALL)


def _harmony(text: str) -> list[ToolCall] | None:
    found = _HARMONY_CALL.search(text)
    values = _values(found[2].removesuffix("<|call|>")) if found else None
    if found is None or values is None or len(values) != 1:
        return None
    return _calls([{"name": found[1], "arguments": values[0]}], ("arguments",))


MISTRAL = CallForm(("[TOOL_CALLS]",), _mistral)
HERMES = CallForm(("<tool_call>",), _hermes, leads=False)
LLAMA = CallForm(("<|python_tag|>", "{"), _llama)
HARMONY = CallForm((" to=functions.",), _harmony, leads=False)


def form_of_template(template: str) -> CallForm | None:
    """The form that a chat template shows its model; None where it shows none that we know."""
    if "<tool_call>" in template and "arguments" in template:
        return HERMES
    if "<|eot_id|>" in template and '"parameters": ' in template:
        return LLAMA
    if "<|call|>" in template and "functions." in template:
        return HARMONY
    return MISTRAL if "[TOOL_CALLS]" in template else None


def _values(text: str) -> list[object] | None:
    """JSON values one behind the other, with space or semicolons between; None where something else stands there."""
    decoder, at, found = json.JSONDecoder(), 0, list[object]()
    try:
        while at < len(text):
            if text[at].isspace() or text[at] == ";":
                at += 1
                continue
            value, at = decoder.raw_decode(text, at)
            found.append(value)
    except (ValueError, RecursionError):
        return None
    return found


def _calls(entries: Sequence[object], keys: Sequence[str]) -> list[ToolCall] | None:
    calls = [_call(entry, keys, number) for number, entry in enumerate(entries)]
    known = [call for call in calls if call is not None]
    return known if known and len(known) == len(calls) else None


def _call(entry: object, keys: Sequence[str], number: int) -> ToolCall | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return None
    given: object = next((entry[key] for key in keys if key in entry), {})
    if not isinstance(given, dict):
        return None
    arguments = json.dumps(given, ensure_ascii=False)
    own = entry.get("id")
    return ToolCall(entry["name"], arguments, own if isinstance(own, str) and own else call_id(entry["name"] + arguments, number))
