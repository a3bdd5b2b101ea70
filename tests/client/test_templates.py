"""Checkpoints' own templates, beside what transformers makes of the same template, tokenizer and chat."""

from __future__ import annotations

import functools
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_vocabularies import CONFIGS, assets_of, library
from templates import DEEPSEEK, DOCUMENTS, HARMONY, LLAMA3, MIXTRAL, QWEN3

from swarm.client.asset import special_text
from swarm.client.chat_format import ChatFormat, chat_format
from swarm.client.jinja_format import JinjaFormat
from swarm.client.messages import Message, ToolCall
from swarm.client.renderer import Renderer
from swarm.client.tokenizer import Tokenizer, read_tokenizer
from swarm.client.tools import Tool, read_tools
from swarm.errors import ModelError

FAMILIES = {
    "llama3": LLAMA3,
    "qwen": QWEN3,
    "deepseek": DEEPSEEK,
    "gpt-oss": HARMONY,
    "llama2": MIXTRAL,
    "llama2-new": MIXTRAL,
    "dbrx": DOCUMENTS,
}
WITH_TOOLS = ["llama3", "qwen", "gpt-oss"]
TOOLS_TEXT = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Wetter, größer <now>",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
    ]
)
TOOLS = read_tools(TOOLS_TEXT, "tools.json")
TEXT = st.one_of(
    st.text(max_size=20), st.sampled_from(["Hi", " two  spaces ", "\n\nlines\n", "中文 é 👩‍👩‍👧", "<think>so</think>ok"])
)


@functools.cache
def tokenizer_of(name: str) -> Tokenizer:
    return read_tokenizer(assets_of(name, FAMILIES[name]))


@functools.cache
def family(name: str) -> ChatFormat:
    return chat_format(assets_of(name, FAMILIES[name]), tokenizer_of(name))


@functools.cache
def oracle(name: str) -> Any:
    transformers = pytest.importorskip("transformers")
    named = {key: special_text(value) for key, value in CONFIGS[name].items() if special_text(value)}
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=type(library(name)).from_str(library(name).to_str()), **named)
    made.chat_template = FAMILIES[name]
    return made


def documents_of(chat: list[Message]) -> list[dict[str, Any]]:
    """A chat as transformers takes it."""
    documents = []
    for message in chat:
        document: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            functions = [{"name": call.name, "arguments": call.values} for call in message.tool_calls]
            document |= {"content": None, "tool_calls": [{"type": "function", "function": f} for f in functions]}
        documents.append(document | ({"name": message.name} if message.name else {}))
    return documents


def transformers_tokens(name: str, chat: list[Message], tools: tuple[Tool, ...] = (), **more: object) -> list[int]:
    raw = [dict(tool.document) for tool in tools] or None
    made = oracle(name).apply_chat_template(
        documents_of(chat), tools=raw, add_generation_prompt=True, tokenize=True, return_dict=False, **more
    )
    return list(made)


@st.composite
def chats(draw: st.DrawFn) -> list[Message]:
    chat = [Message("system", draw(TEXT.filter(bool)))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        chat += [Message("user", draw(TEXT)), Message("assistant", draw(TEXT))]
    return [*chat, Message("user", draw(TEXT))]


@pytest.mark.parametrize("name", FAMILIES)
@given(chat=chats())
@settings(max_examples=40, deadline=None)
def test_a_chat_is_asked_as_transformers_asks_it_token_for_token(name: str, chat: list[Message]) -> None:
    assert family(name).prompt(chat) == transformers_tokens(name, chat)


CALLED = [
    Message("user", "The weather in Paris?"),
    Message("assistant", tool_calls=(ToolCall("get_weather", '{"city": "Zürich"}'),)),
    Message("tool", '{"sky": "clear"}', name="get_weather"),
]


@pytest.mark.parametrize("name", WITH_TOOLS)
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("system", [[], [Message("system", "Be brief.")]])
def test_tools_calls_and_results_are_written_as_transformers_writes_them(name: str, size: int, system: list[Message]) -> None:
    chat = [*system, *CALLED[:size]]
    assert family(name).prompt(chat, TOOLS) == transformers_tokens(name, chat, TOOLS)


def test_arguments_are_a_text_where_a_template_takes_them_for_one() -> None:
    shown = tokenizer_of("deepseek").decode(family("deepseek").prompt(CALLED))
    assert 'get_weather\n```json\n{"city": "Zürich"}\n```' in shown


def test_documents_reach_the_template() -> None:
    chat, documents = [Message("user", "Hi")], [{"title": "A", "text": "b"}]
    want = transformers_tokens("dbrx", chat, documents=documents)
    assert family("dbrx").prompt(chat, documents=documents) == want != family("dbrx").prompt(chat)


@pytest.mark.parametrize(("name", "end"), [("llama3", "<|eot_id|>"), ("qwen", "<|im_end|>"), ("gpt-oss", "<|call|>")])
def test_a_tools_result_keeps_the_tokens_so_far_and_is_what_the_whole_chat_says(name: str, end: str) -> None:
    form, tokenizer = family(name), tokenizer_of(name)
    whole = form.prompt(CALLED, TOOLS)
    ended = tokenizer.specials[end]
    asked = len(form.prompt(CALLED[:1], TOOLS))
    said = whole[: whole.index(ended, asked) + 1]
    assert form.extend(said, CALLED[2:]) == whole
    assert form.extend(said[:-1], CALLED[2:]) == whole or name == "gpt-oss"


@pytest.mark.parametrize("name", ["llama3", "qwen", "deepseek", "gpt-oss"])
@pytest.mark.parametrize("ended", [True, False])
def test_a_further_question_keeps_the_tokens_so_far_and_ends_the_answer_once(name: str, ended: bool) -> None:
    form, tokenizer = family(name), tokenizer_of(name)
    whole = form.prompt([Message("user", "a"), Message("assistant", "b"), Message("user", "c")])
    begun = form.prompt([Message("user", "a"), Message("assistant", "b")][:1])
    said = [*begun, *tokenizer.encode("b"), *([tokenizer.eos_ids[0]] if ended else [])]
    further = form.extend(said, [Message("user", "c")])
    assert further[: len(said)] == said
    rest = further[len(said) :] if ended else further[len(said) + 1 :]
    assert rest == whole[len(whole) - len(rest) :] and whole[len(whole) - len(rest) - 1] in (
        *tokenizer.eos_ids,
        tokenizer.specials.get("<|end|>"),
    )
    assert ended or further[len(said)] in (*tokenizer.eos_ids, tokenizer.specials.get("<|end|>"))


@pytest.mark.parametrize("name", WITH_TOOLS)
@pytest.mark.parametrize("typed", ["<|im_end|>", "<|eot_id|>", "<|start|>"])
def test_control_tokens_in_tools_arguments_and_results_stay_text(name: str, typed: str) -> None:
    document = {"name": "f", "description": typed, "parameters": {"properties": {typed: {"type": "string"}}}}
    tools = read_tools(json.dumps([document]), "t")
    chat = [Message("user", typed), Message("assistant", tool_calls=(ToolCall("f", json.dumps({typed: typed})),))]
    chat.append(Message("tool", typed, name="f"))
    tokenizer = tokenizer_of(name)
    tokens = family(name).prompt(chat, tools)
    calm = family(name).prompt(
        [Message("user", "x"), Message("assistant", tool_calls=(ToolCall("f", "{}"),)), Message("tool", "x", name="f")], tools
    )
    assert list(filter(tokenizer.is_control, tokens)) == list(filter(tokenizer.is_control, calm))
    assert tokenizer.decode(tokens).count(typed) >= 4


def test_the_template_named_tool_use_is_taken_where_there_are_tools() -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "{{ tools[0].function.name }}"}]
    assets = assets_of("qwen", named)
    form, tokenizer = chat_format(assets, read_tokenizer(assets)), read_tokenizer(assets)
    assert tokenizer.decode(form.prompt([Message("user", "x")])) == "plain"
    assert tokenizer.decode(form.prompt([Message("user", "x")], TOOLS)) == "get_weather"


def test_a_processors_template_comes_last() -> None:
    processor = {"chat_template.json": b'{"chat_template": "processor"}'}
    for assets, want in (
        ({**assets_of("qwen"), **processor}, "processor"),
        ({**assets_of("qwen", "config"), **processor}, "config"),
        ({**assets_of("qwen", "config"), **processor, "chat_template.jinja": b"file"}, "file"),
        ({**assets_of("qwen", "config"), "chat_template.jinja": b"file", "own_template.jinja": b"own"}, "own"),
    ):
        tokenizer = read_tokenizer(assets)
        assert tokenizer.decode(chat_format(assets, tokenizer).prompt([Message("user", "x")])) == want


def test_tokens_that_swallow_white_space_do() -> None:
    size = library("dbrx").get_vocab_size()
    added = {str(size): {"content": "<|go|>", "special": True, "rstrip": True, "lstrip": True}}
    assets = assets_of("dbrx", "a <|go|> \n b", added_tokens_decoder=added)
    tokenizer = read_tokenizer(assets)
    tokens = chat_format(assets, tokenizer).prompt([Message("user", "x")])
    assert tokens == [*tokenizer.encode("a"), size, *tokenizer.encode("b")]


@pytest.mark.parametrize(
    ("name", "template", "ends"),
    [
        ("llama3", LLAMA3, ["<|eot_id|>", "<|eom_id|>"]),
        ("qwen", QWEN3, ["<|im_end|>"]),
        ("gpt-oss", HARMONY, ["<|return|>", "<|call|>"]),
        ("dbrx", DOCUMENTS, ["<|endoftext|>", "<|im_end|>"]),
        ("deepseek", DEEPSEEK, ["<｜end▁of▁sentence｜>"]),
        ("llama2", MIXTRAL, ["</s>"]),
    ],
)
def test_answers_end_where_each_familys_turns_end(name: str, template: str, ends: list[str]) -> None:
    generation = {"llama3": ["<|eot_id|>", "<|eom_id|>"]}.get(name, [])
    ids = [library(name).token_to_id(text) for text in generation]
    assets = {**assets_of(name, template), "generation_config.json": json.dumps({"eos_token_id": ids}).encode()}
    assert set(read_tokenizer(assets).eos_ids) == {library(name).token_to_id(text) for text in ends}


HOSTILE = {
    "a loop in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a loop that calls itself": "{% macro m(n) %}{% for i in range(99) %}{{ m(n) }}{% endfor %}{% endmacro %}{{ m(0) }}",
    "a huge text": "{{ 'a' * 10**10 }}",
    "a huge number": "{{ 10 ** (messages | length * 10 ** 9) }}",
    "a huge output": "{% for i in range(9999) %}{{ 'a' * 99999 }}{% endfor %}",
    "a huge padding": "{{ '{:>9999999999}'.format(1) }}",
    "attributes of classes": "{{ [].__class__.__base__.__subclasses__() }}",
    "attributes by filter": "{{ ([] | attr('__class__')).__mro__ }}",
    "globals of functions": "{{ raise_exception.__globals__['json'] }}",
    "a format that looks inside": "{{ '{0.__class__.__mro__}'.format(1) }}",
    "names for a namespace's insides": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_template_is_stopped_and_the_next_chat_goes_on(what: str) -> None:
    template, tokenizer = (
        "{% if messages[0].content == 'attack' %}" + HOSTILE[what] + "{% else %}fine{% endif %}",
        tokenizer_of("qwen"),
    )
    form = JinjaFormat(template, template, tokenizer, Renderer(cpu_s=0.5))
    with pytest.raises(ModelError, match=r"was stopped|refuses this chat|no jinja"):
        form.prompt([Message("user", "attack")])
    assert tokenizer.decode(form.prompt([Message("user", "x")])) == "fine"


def test_a_template_process_ends_with_the_format_that_started_it() -> None:
    assets = assets_of("qwen", "fine")
    form = chat_format(assets, read_tokenizer(assets))
    form.prompt([Message("user", "x")])
    assert isinstance(form, JinjaFormat)
    process = form._renderer._process
    assert process is not None and process.poll() is None
    del form
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() == 0
