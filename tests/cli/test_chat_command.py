"""`swarm chat` and `swarm score`, with the client's twin behind them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import cast

import pytest
from commands import Ran, is_one_sentence, python
from fake_client import ANSWER, CALL, NEWS, FakeClient
from typist import CTRL_C, CTRL_D, Typist

from swarm.cli.score import perplexity
from swarm.client.client import Client
from swarm.client.messages import Message
from swarm.client.sampling import Sampling
from swarm.client.talk import Talk, Wishes
from swarm.client.tools import read_tools
from swarm.errors import Lost, UsageError

TWIN = "import fake_client; fake_client.install(); from swarm.cli.main import main; main()"
SWARM = ("--swarm", "127.0.0.1:1", "--key", "k")


@pytest.fixture(autouse=True)
def twin_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))))


def twin(*words: str, text: str | None = None) -> Ran:
    return python(TWIN, *words, *SWARM, text=text)


@pytest.mark.parametrize(("words", "text"), [(("Hello?",), None), ((), "Hello?\n"), (("-",), "Hello?"), (("Hello?",), "ignored")])
def test_one_answer_is_all_that_standard_output_holds(words: tuple[str, ...], text: str | None) -> None:
    assert twin("chat", *words, text=text) == Ran(0, ANSWER + "\n", "")


def test_news_of_the_swarm_goes_to_standard_error() -> None:
    assert twin("chat", "news") == Ran(0, ANSWER + "\n", NEWS + "\n")


def test_json_is_one_document_with_the_documented_keys() -> None:
    ran = twin("chat", "--json", "echo")
    document = json.loads(ran.out)
    assert set(document) == {"text", "tokens", "logprobs", "finish_reason", "usage", "timings"}
    assert document["text"].endswith("0 held") and document["finish_reason"] == "stop"
    assert len(document["tokens"]) == len(document["logprobs"]) == document["usage"]["completion_tokens"]
    counts = {"traversals": 0, "drafted": 0, "kept": 0}
    assert document["timings"] == {"ttft_s": 0.25, "tokens_per_s": 10.0, "hops": [], **counts}
    assert document["usage"]["cached_tokens"] == 0 and document["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("chat",), "PROMPT"),
        (("chat", "  "), "PROMPT"),
        (("chat", "x", "--raw", "--system", "y"), "--raw"),
        (("chat", "x", "--raw", "--tools", "t.json"), "--raw"),
        (("chat", "x", "--tools", "/no/such/file"), "/no/such/file"),
        (("chat", "x", "--template", "/no/such/file"), "/no/such/file"),
        (("chat", "x", "--plan-file", "p.json"), "--plan-file"),
        (("chat", "x", "--temperature", "101"), "temperature"),
        (("chat", "x", "--top-p", "0"), "top-p"),
        (("score",), "empty"),
        (("score", "/no/such/file"), "/no/such/file"),
    ],
)
def test_what_makes_no_sense_is_one_sentence_and_2(words: tuple[str, ...], hint: str) -> None:
    ran = twin(*words)
    assert ran.code == 2 and ran.out == ""
    assert is_one_sentence(ran.err) and hint in ran.err


def test_a_lost_worker_is_one_sentence_and_1() -> None:
    ran = twin("chat", "fail")
    assert ran.code == 1 and ran.err == "swarm: rig-b/cpu: the worker does not answer\n"


@pytest.mark.parametrize("code", ["chat", "score"])
def test_no_swarm_at_the_address_is_one_sentence(code: str) -> None:
    ran = python("from swarm.cli.main import main; main()", code, *SWARM, text="hello")
    assert ran.code == 1 and is_one_sentence(ran.err) and "127.0.0.1:1" in ran.err


async def test_a_second_question_leaves_all_tokens_before_it_as_they_are() -> None:
    client = FakeClient(print)
    talk = Talk(cast(Client, client), Wishes(system="Be brief."))
    for question in ("One?", "Two?", "Three?"):
        async for _ in talk.ask(question):
            pass
    one, two, three = client.conversations[0].prompts
    answer = [*client.tokenizer.encode(ANSWER), 2]
    assert two[: len(one) + len(answer)] == [*one, *answer]
    assert three[: len(two) + len(answer)] == [*two, *answer]
    assert "Be brief." in client.tokenizer.decode(one) and "Be brief." not in client.tokenizer.decode(three[len(two) :])


async def test_a_question_that_failed_is_forgotten_by_the_next() -> None:
    client = FakeClient(print)
    talk = Talk(cast(Client, client), Wishes())
    with pytest.raises(Lost):
        async for _ in talk.ask("fail"):
            pass
    async for _ in talk.ask("One?"):
        pass
    assert client.conversations[0].prompts[1] == client.chat_format.prompt([Message("user", "One?")])


async def test_bytes_that_are_no_text_are_refused_and_never_asked() -> None:
    client = FakeClient(print)
    talk = Talk(cast(Client, client), Wishes())
    with pytest.raises(UsageError, match="no text: give it as UTF-8"):
        async for _ in talk.ask("\udcff\udcfe"):
            pass
    assert not any(conversation.prompts for conversation in client.conversations)


async def test_raw_is_the_text_behind_bos_and_nothing_else() -> None:
    client = FakeClient(print)
    talk = Talk(cast(Client, client), Wishes(raw=True))
    async for _ in talk.ask("The capital"):
        pass
    assert client.conversations[0].prompts == [[1, *client.tokenizer.encode("The capital")]]


def test_nothing_is_guessed_where_that_is_not_wished() -> None:
    client = FakeClient(print)
    for wished in (True, False):
        Talk(cast(Client, client), Wishes(speculate=wished))
        assert client.speculates is wished


def test_wishes_replace_the_models_defaults_and_only_those_wished() -> None:
    defaults = Sampling(temperature=0.3, top_p=0.9, top_k=5)
    assert Wishes(temperature=0.0, seed=7).sampling(defaults) == Sampling(temperature=0.0, top_p=0.9, top_k=5, seed=7)
    assert Wishes().sampling(defaults).seed != Wishes().sampling(defaults).seed


def test_a_person_asks_twice_and_the_second_question_costs_its_own_tokens_only() -> None:
    with Typist(TWIN, "chat", *SWARM) as typist:
        typist.see("Ctrl-D ends the chat")
        typist.see("> ")
        typist.type("echo\n")
        assert ", 0 held" in typist.see("held")
        assert "the first after 0.25 s" in typist.see("0.25 s")
        typist.see("> ")
        typist.type("echo\n")
        shown = typist.see("held").rpartition("\n")[2]
        prompt, held = (int(word) for word in shown.replace(",", "").split() if word.isdigit())
        # All that was said is held; new are the brackets and the question.
        assert 0 < prompt - held < 12 and held > 12
        typist.see("> ")
        typist.type(CTRL_D)
        assert typist.leave()[0] == 0


def test_ctrl_c_stops_the_answer_and_not_the_chat() -> None:
    with Typist(TWIN, "chat", *SWARM) as typist:
        typist.see("> ")
        typist.type("slow\n")
        typist.see("The capital")
        typist.type(CTRL_C)
        typist.see("> ")
        typist.type("Hello?\n")
        typist.see(ANSWER)
        typist.see("> ")
        typist.type(CTRL_D)
        code, rest = typist.leave()
        assert code == 0 and "Traceback" not in rest


def test_an_error_ends_the_answer_and_not_the_chat() -> None:
    with Typist(TWIN, "chat", *SWARM) as typist:
        typist.see("> ")
        typist.type("fail\n")
        typist.see("swarm: rig-b/cpu: the worker does not answer")
        typist.see("> ")
        typist.type("Hello?\n")
        typist.see(ANSWER)
        typist.see("> ")
        typist.type(CTRL_D)
        assert typist.leave()[0] == 0


def test_ctrl_c_during_a_single_answer_ends_with_130_and_no_traceback() -> None:
    with Typist(TWIN, "chat", "slow", *SWARM) as typist:
        typist.see("The capital")
        typist.type(CTRL_C)
        code, rest = typist.leave()
        assert code == 130 and "Traceback" not in rest


def test_the_key_is_asked_for_at_a_terminal_and_not_shown() -> None:
    with Typist(TWIN, "chat", "Hello?", "--swarm", "127.0.0.1:1") as typist:
        typist.see("Key of the swarm at 127.0.0.1:1: ")
        typist.type("secret\n")
        assert "secret" not in typist.see(ANSWER)
        assert typist.leave()[0] == 0


@pytest.mark.parametrize("words", [("text.txt",), ("-",), ()])
def test_score_json_has_bos_first_with_null_and_the_perplexity_of_the_rest(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("The capital of France")
    ran = twin("score", *words, "--json", text="The capital of France")
    document = json.loads(ran.out)
    assert set(document) == {"tokens", "logprobs", "perplexity", "model"} and document["model"] == "twin"
    assert document["tokens"][0] == 1 and document["logprobs"][0] is None
    assert len(document["tokens"]) == len(document["logprobs"])
    rest = document["logprobs"][1:]
    assert math.isclose(document["perplexity"], math.exp(-sum(rest) / len(rest)))


def test_a_person_sees_each_token_of_a_score_and_the_perplexity() -> None:
    ran = twin("score", text="The capital")
    assert "-0.5000" in ran.out and "perplexity" in ran.out.splitlines()[-1]


@pytest.mark.parametrize(("logprobs", "value"), [([None, 0.0], 1.0), ([None, -1e9], math.inf), ([None, -math.inf], math.inf)])
def test_perplexity_has_no_bound(logprobs: list[float | None], value: float) -> None:
    assert perplexity(logprobs) == value


TEMPLATE = """{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]
{%- elif m.role == 'tool' %}[INST] result: {{ m.content }} [/INST]
{%- elif m.tool_calls %}<tool_call> {"name": "{{ m.tool_calls[0].function.name }}", "arguments":
{{- m.tool_calls[0].function.arguments | tojson }}} </tool_call>{{ eos_token }}
{%- else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"""


@pytest.fixture
def tool_files(tmp_path: Path) -> tuple[str, ...]:
    """Options for a model that calls tools, in the form that its template shows."""
    (tmp_path / "tools.json").write_text('[{"name": "get_weather", "parameters": {"type": "object"}}]')
    (tmp_path / "own.jinja").write_text(TEMPLATE)
    return "--tools", str(tmp_path / "tools.json"), "--template", str(tmp_path / "own.jinja")


def test_a_call_is_printed_as_name_and_arguments_and_in_json_as_a_list(tool_files: tuple[str, ...]) -> None:
    assert twin("chat", "weather", *tool_files) == Ran(0, 'get_weather {"city": "Paris"}\n', "")
    document = json.loads(twin("chat", "weather", "--json", *tool_files).out)
    assert [(call["name"], call["arguments"]) for call in document["tool_calls"]] == [("get_weather", {"city": "Paris"})]
    assert document["text"] == CALL
    assert json.loads(twin("chat", "Hello?", "--json", *tool_files).out)["tool_calls"] == []


def test_with_tools_an_answer_that_calls_none_is_shown_as_ever(tool_files: tuple[str, ...]) -> None:
    assert twin("chat", "Hello?", *tool_files) == Ran(0, ANSWER + "\n", "")


def test_a_bad_tool_file_is_one_sentence_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text('[{"name": "a b"}]')
    ran = twin("chat", "x", "--tools", str(tmp_path / "tools.json"))
    assert ran.code == 2 and is_one_sentence(ran.err) and "tools.json has the name 'a b'" in ran.err


def test_a_person_types_what_a_tool_gave_or_names_a_file_and_the_answer_goes_on(
    tool_files: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "sky.txt").write_text("cloudy")
    with Typist(TWIN, "chat", *tool_files, *SWARM) as typist:
        for typed, told in (("sunny", "It is sunny."), (f"@{tmp_path}/none\n@{tmp_path}/sky.txt", "It is cloudy.")):
            typist.see("> ")
            typist.type("weather\n")
            typist.see('get_weather {"city": "Paris"}')
            typist.see("result of get_weather (or @file)> ")
            typist.type(f"{typed}\n")
            typist.see(told)
        typist.see("> ")
        typist.type("weather\n")
        typist.see("result of get_weather (or @file)> ")
        typist.type("\nHello?\n")
        typist.see(ANSWER)
        typist.see("> ")  # a Ctrl-D before there is a line to end would be lost
        typist.type(CTRL_D)
        assert typist.leave()[0] == 0


async def test_a_result_goes_behind_the_tokens_so_far() -> None:
    client = FakeClient(print, {"own_template.jinja": TEMPLATE.encode()})
    tools = read_tools('[{"name": "get_weather"}]', "t")
    talk = Talk(cast(Client, client), Wishes(tools=tools))
    assert "".join([piece.text async for piece in talk.ask("weather")]) == ""
    assert "".join([piece.text async for piece in talk.tell(["sunny"])]) == "It is sunny."
    one, two = client.conversations[0].prompts
    assert two[: len(one)] == one and client.tokenizer.decode(two[len(one) :]).startswith(CALL)


def test_a_model_without_a_template_is_said_to_continue_the_text() -> None:
    without = "import fake_client; fake_client.install(without_template=True); from swarm.cli.main import main; main()"
    ran = python(without, "chat", "Hello?", *SWARM)
    assert ran.code == 0 and ran.out == ANSWER + "\n"
    assert ran.err.count("\n") == 1 and "no chat template" in ran.err
    ran = python(without, "chat", "Hello?", "--system", "x", *SWARM)
    assert ran.code == 2 and "without a chat template" in ran.err
