"""Tools in and tool calls out: Mistral's formats beside mistral-common, and the forms of other families."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_vocabularies import assets_of
from mistral_common.protocol.instruct import messages as mc
from mistral_common.protocol.instruct import tool_calls as mt
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from templates import HARMONY, LLAMA3, MIXTRAL, QWEN3
from vocabularies import mistral_path, tokenizer_of

from swarm.client.call_form import HARMONY as CHANNELS
from swarm.client.call_form import HERMES, LLAMA, MISTRAL, CallForm, call_id, form_of_template
from swarm.client.chat_format import ChatFormat, chat_format
from swarm.client.messages import Message, ToolCall
from swarm.client.spelling import HeldCalls, calls_of
from swarm.client.tokenizer import Tokenizer, read_tokenizer
from swarm.client.tools import Tool, read_tools
from swarm.errors import UsageError

SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "description": "größer"}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "Now, in a city.", "parameters": SCHEMA}
TOOLS = read_tools(json.dumps([{"type": "function", "function": FUNCTION}, {"name": "now"}]), "tools.json")
CALL = ToolCall("get_weather", '{"city": "Zürich", "n": [1, 2.5, null]}', "VvvODy9mT")


@functools.cache
def native(version: str) -> ChatFormat:
    return chat_format({f"tokenizer.model.{version}": b""}, tokenizer_of(version))


@functools.cache
def oracle(version: str) -> MistralTokenizer:
    return MistralTokenizer.from_file(str(mistral_path(version)))


def mistral_commons(message: Message) -> Any:
    if message.role == "tool":
        return mc.ToolMessage(content=message.content, tool_call_id=message.tool_call_id, name=message.name or None)
    if message.tool_calls:
        calls = [mt.ToolCall(id=c.id, function=mt.FunctionCall(name=c.name, arguments=c.arguments)) for c in message.tool_calls]
        return mc.AssistantMessage(content=None, tool_calls=calls)
    kinds: dict[str, Any] = {"system": mc.SystemMessage, "user": mc.UserMessage, "assistant": mc.AssistantMessage}
    return kinds[message.role](content=message.content)


def mistral_common_tokens(version: str, chat: list[Message], tools: tuple[Tool, ...]) -> list[int]:
    known = [mt.Tool.from_openai(dict(tool.document)) for tool in tools] or None
    request: Any = ChatCompletionRequest(messages=[mistral_commons(message) for message in chat], tools=known)
    return list(oracle(version).encode_chat_completion(request).tokens)


VALUES = st.recursive(st.none() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3), max_leaves=4)
NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
IDS = st.from_regex(r"[a-zA-Z0-9]{9}", fullmatch=True)
RESULTS = st.one_of(st.text(max_size=20), VALUES.map(json.dumps), st.just(""))


@st.composite
def tool_chats(draw: st.DrawFn, most_results: int) -> list[Message]:
    chat = [Message("system", "Be brief.")] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 2))):
        chat.append(Message("user", draw(st.text(max_size=10))))
        calls = [
            ToolCall(draw(NAMES), json.dumps(draw(st.dictionaries(st.text(max_size=5), VALUES, max_size=3))), draw(IDS))
            for _ in range(draw(st.integers(1, most_results)))
        ]
        chat.append(Message("assistant", tool_calls=tuple(calls)))
        chat += [Message("tool", draw(RESULTS), tool_call_id=call.id, name=call.name) for call in calls]
        if draw(st.booleans()):
            chat.append(Message("assistant", draw(st.text(min_size=1, max_size=10).filter(str.strip))))
            chat.append(Message("user", draw(st.text(max_size=10))))
    return chat


@pytest.mark.parametrize(("version", "most_results"), [("v2", 1), ("v3", 3)])
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_function_calling_is_mistral_commons_token_for_token(version: str, most_results: int, data: st.DataObject) -> None:
    chat = data.draw(tool_chats(most_results))
    tools = data.draw(st.sampled_from([TOOLS, TOOLS[:1], ()]))
    assert native(version).prompt(chat, tools) == mistral_common_tokens(version, chat, tools)


def test_what_8x22b_instruct_calls_is_read_and_its_result_goes_on() -> None:
    form, tokenizer = native("v3"), tokenizer_of("v3")
    question = Message("user", "The weather in Zürich?")
    asked = form.prompt([question], TOOLS)
    whole = mistral_common_tokens(
        "v3", [question, Message("assistant", tool_calls=(CALL,)), Message("tool", "fine", tool_call_id=CALL.id)], TOOLS
    )
    end = whole.index(2, len(asked)) + 1
    assert form.tool_calls(whole[len(asked) : end]) == [CALL]
    assert form.extend(whole[:end], [Message("tool", "fine", tool_call_id=CALL.id)]) == whole
    assert form.tool_calls(tokenizer.encode(json.dumps([{"name": "f", "arguments": {}}]))) is None  # no [TOOL_CALLS] before it


def test_ids_that_mistrals_format_does_not_know_become_some_that_it_does() -> None:
    chat = [Message("user", "x"), Message("assistant", tool_calls=(ToolCall("f", "{}", "call_0123-x"),))]
    chat.append(Message("tool", "y", tool_call_id="call_0123-x"))
    shown = tokenizer_of("v3").decode(native("v3").prompt(chat))
    assert shown.count(call_id("call_0123-x")) == 2 and re.fullmatch("[a-zA-Z0-9]{9}", call_id("call_0123-x"))


@pytest.mark.parametrize(
    ("version", "chat", "tools", "says"),
    [
        ("v1", [Message("user", "x")], TOOLS, "v1, which has no tools"),
        ("nano", [Message("user", "x")], TOOLS, "v1, which has no tools"),
        (
            "v3",
            [Message("user", "x"), Message("assistant", "y", (CALL,)), Message("tool", "z", tool_call_id="a")],
            (),
            "never both",
        ),
        ("v3", [Message("user", "x"), Message("assistant", tool_calls=(CALL,)), Message("tool", "z")], (), "names no call"),
        ("v2", [Message("user", "x"), Message("assistant", tool_calls=(CALL, CALL)), *[Message("tool", "z")] * 2], (), "one tool"),
    ],
)
def test_what_a_mistral_format_has_no_place_for_is_said(
    version: str, chat: list[Message], tools: tuple[Tool, ...], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        native(version).prompt(chat, tools)


@pytest.mark.parametrize(
    ("form", "text", "calls"),
    [
        (MISTRAL, '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]', [("f", {"a": 1})]),
        (MISTRAL, '[TOOL_CALLS][{"name":"f","arguments":{}},{"name":"g","arguments":{}}]', [("f", {}), ("g", {})]),
        (MISTRAL, '[TOOL_CALLS] [{"name": "f"', None),
        (MISTRAL, '[{"name": "f", "arguments": {}}]', None),
        (MISTRAL, "[TOOL_CALLS] []", None),
        (HERMES, 'So:\n<tool_call>\n{"name": "f", "arguments": {"a": "é"}}\n</tool_call>', [("f", {"a": "é"})]),
        (HERMES, '<tool_call>{"name": "f", "arguments": {}}</tool_call>\n<tool_call>{"name": "g"}', [("f", {}), ("g", {})]),
        (HERMES, "<tool_call>{broken</tool_call>", None),
        (HERMES, '{"name": "f", "arguments": {}}', None),
        (LLAMA, '{"name": "f", "parameters": {"a": 1}}', [("f", {"a": 1})]),
        (LLAMA, '<|python_tag|>{"type": "function", "name": "f", "parameters": {}}; {"name": "g"}', [("f", {}), ("g", {})]),
        (LLAMA, '{"answer": 42}', None),
        (LLAMA, '{"name": "f", "parameters": "a"}', None),
        (LLAMA, "<|python_tag|>brave_search.call(query='x')", None),
        (LLAMA, "Paris.", None),
        (LLAMA, "[" * 100_000, None),
        (CHANNELS, '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}', [("f", {"a": 1})]),
        (CHANNELS, ' to=functions.f<|channel|>commentary json<|message|>{"a": 1}<|call|>', [("f", {"a": 1})]),
        (CHANNELS, "<|channel|>final<|message|>Write to=functions.f", None),
        (CHANNELS, " to=functions.f<|message|>a", None),
    ],
)
def test_calls_are_read_in_each_form_and_nothing_else_is(form: CallForm, text: str, calls: list[tuple[str, Any]] | None) -> None:
    found = form.parse(text)
    assert (found and [(call.name, call.values) for call in found]) == calls
    assert not found or len({call.id for call in found}) == len(found)


def test_the_form_of_calls_is_the_one_that_the_template_shows() -> None:
    assert [form_of_template(template) for template in (LLAMA3, QWEN3, MIXTRAL, HARMONY)] == [LLAMA, HERMES, None, CHANNELS]


@functools.cache
def family(name: str) -> tuple[ChatFormat, Tokenizer]:
    assets = assets_of(name, {"llama3": LLAMA3, "qwen": QWEN3}[name])
    tokenizer = read_tokenizer(assets)
    return chat_format(assets, tokenizer), tokenizer


@pytest.mark.parametrize(
    ("name", "text", "special", "visible"),
    [
        ("llama3", '{"name": "f", "parameters": {}}', "<|python_tag|>", ""),
        ("llama3", '{"name": "f", "parameters": {}}', "", ""),
        ("qwen", 'Let me see.\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>', "", "Let me see.\n"),
    ],
)
def test_the_text_of_calls_is_held_back_as_it_streams(name: str, text: str, special: str, visible: str) -> None:
    form, tokenizer = family(name)
    ids = [*([tokenizer.specials[special]] if special else []), *tokenizer.encode(text), tokenizer.eos_ids[0]]
    held, stream = HeldCalls(form.call_form, tokenizer), tokenizer.stream()
    assert "".join(held.push(token, stream.push(token)) for token in ids) == visible
    assert [call.name for call in form.tool_calls(ids) or ()] == ["f"]


@given(
    text=st.one_of(st.text(), st.sampled_from(["{", '{"a"', "<tool_call", "a<tool_call>b", " [TOOL", "<", "<tool_x"])),
    size=st.integers(1, 5),
)
def test_what_is_no_call_is_shown_whole(text: str, size: int) -> None:
    for form in (MISTRAL, HERMES, LLAMA, None):
        held = HeldCalls(form, tokenizer_of("nano"))
        shown = "".join(held.push(-1, text[at : at + size]) for at in range(0, len(text), size))
        assert shown + held.finish() == text and text.startswith(shown)


def test_an_answer_without_a_known_form_calls_nothing() -> None:
    assert calls_of(None, tokenizer_of("nano"), [5, 6]) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "tools.json is not JSON"),
        ("{}", "no list of tool definitions"),
        ("[]", "no list of tool definitions"),
        ('["x"]', "tool 1 of tools.json is a text"),
        ("[3]", "tool 1 of tools.json is a number"),
        ('[{"type": "browser", "function": {}}]', "of the type 'browser'"),
        ('[{"function": []}]', "a list as its function"),
        ('[{"name": "ok"}, {"description": "x"}]', "tool 2 of tools.json has the name None"),
        ('[{"name": "a b"}]', "has the name 'a b'"),
        ('[{"name": "f", "description": 3}]', r"tool 1 of tools.json \(f\) has a number"),
        ('[{"name": "f", "parameters": [1]}]', r"\(f\) has parameters that are no JSON schema"),
        ('[{"name": "f", "parameters": {"type": "string"}}]', r"\(f\) has parameters that are no JSON schema"),
        ('[{"name": "f", "parameters": {"properties": []}}]', r"\(f\) has properties"),
        ('[{"name": "f"}, {"name": "f"}]', "defines the tool f twice"),
        ("[" * 100_000, "tools.json is not JSON"),
    ],
)
def test_a_bad_tool_file_is_named_with_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_tools(text, "tools.json")
