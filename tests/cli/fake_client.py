"""A client's in-memory twin: the embedded model's tokenizer and chat format, and answers without any model.

`echo` as a question is answered with how many tokens the prompt had and how many of them were held already; `slow`
never ends after its first words; `fail` loses a Worker half way; `weather` calls a tool, and what follows its result says
what the result was; anything else is answered with `ANSWER`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import swarm
from swarm.client.answer import Answer
from swarm.client.chat_format import chat_format
from swarm.client.conversation import Piece
from swarm.client.plan_source import PlanSource
from swarm.client.sampling import Sampling
from swarm.client.tokenizer import read_tokenizer
from swarm.errors import Lost
from swarm.wire.credentials import Credentials

ANSWER = "The capital of France is Paris."
CALL = '<tool_call> {"name": "get_weather", "arguments": {"city": "Paris"}} </tool_call>'
NEWS = "rig-b lost; continuing on rig-a"


@dataclass(frozen=True)
class FakeModel:
    name: str = "twin"


@dataclass(frozen=True)
class FakePlan:
    model: FakeModel = FakeModel()


class FakeClient:
    """What commands use of `swarm.client.client.Client`."""

    def __init__(self, notify: Callable[[str], None], own: Mapping[str, bytes] | None = None) -> None:
        folder = Path(swarm.__file__).parent / "models" / "nano-mixtral"
        assets = {p.name: p.read_bytes() for p in folder.iterdir() if p.name.startswith("tokenizer") or p.suffix == ".json"}
        assets |= own or {}
        self.plan = FakePlan()
        self.tokenizer = read_tokenizer(assets)
        self.chat_format = chat_format(assets, self.tokenizer)
        self.defaults = Sampling(temperature=0.0)
        self.notify = notify
        self.conversations: list[FakeConversation] = []
        self.speculates = False

    def conversation(self, speculate: bool = True) -> FakeConversation:
        self.speculates = speculate
        self.conversations.append(FakeConversation(self))
        return self.conversations[-1]

    async def score(self, tokens: Sequence[int]) -> list[float | None]:
        return [None, *(-0.5 * i for i in range(1, len(tokens)))]


class FakeConversation:
    """What commands use of `swarm.client.conversation.Conversation`."""

    def __init__(self, client: FakeClient) -> None:
        self._client = client
        self.tokens: list[int] = []
        self.prompts: list[list[int]] = []
        self.samplings: list[Sampling] = []
        self.answer = Answer()
        self.closed = False

    async def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        max_tokens: int | None = None,
        stops: Sequence[str] = (),
        begun: Sequence[int] = (),
    ) -> AsyncIterator[Piece]:
        held = sum(1 for a, b in zip(self.tokens, prompt, strict=False) if a == b)
        self.tokens = list(prompt)
        self.prompts.append(list(prompt))
        self.samplings.append(sampling)
        question = self._client.tokenizer.decode(prompt).rpartition("[INST]")[2].replace("[/INST]", "").strip()
        self.answer = Answer(prompt_tokens=len(prompt), cached_tokens=held, ttft_s=0.25, tokens_per_s=10.0)
        text = {"echo": f"{len(prompt)} tokens, {held} held", "weather": CALL}.get(question, ANSWER)
        if question.startswith("result: "):
            text = f"It is {question.removeprefix('result: ')}."
        ids = [*self._client.tokenizer.encode(text), 2]
        if question == "news":
            self._client.notify(NEWS)
        for i, token in enumerate(ids[: max_tokens or len(ids)]):
            if question in ("slow", "fail") and i == 3:
                await self._trouble(question)
            shown = self._client.tokenizer.decode(ids[: i + 1])[len(self.answer.text) :]
            self.answer.text += shown
            self.answer.tokens.append(token)
            self.answer.logprobs.append(-0.5)
            self.tokens.append(token)
            yield Piece(shown, token, -0.5)
        self.answer.finish_reason = "length" if max_tokens and max_tokens < len(ids) else "stop"

    async def _trouble(self, question: str) -> None:
        if question == "fail":
            raise Lost("the worker does not answer", "rig-b/cpu")
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed = True


def install(without_template: bool = False) -> None:
    """Put the twin in the place of the real client, for commands run in this process."""
    import swarm.cli.chat
    import swarm.cli.score

    @asynccontextmanager
    async def open_fake(
        source: PlanSource,
        credentials: Credentials,
        notify: Callable[[str], None] = lambda _: None,
        own: Mapping[str, bytes] | None = None,
    ) -> AsyncIterator[FakeClient]:
        yield FakeClient(notify, {"tokenizer_config.json": b"{}"} if without_template else own)

    swarm.cli.chat.open_client = open_fake  # type: ignore[assignment, attr-defined]
    swarm.cli.score.open_client = open_fake  # type: ignore[assignment, attr-defined]
