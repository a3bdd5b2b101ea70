"""What other Workers say is checked too: sizes, shapes and dtypes before memory is taken, and each frame has its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio
import torch
from plans import plan_of
from raw_client import RawClient, bits, raw, step
from swarm_processes import workers_here

from swarm.plan import Plan
from swarm.wire.credentials import Credentials
from swarm.wire.tensors import to_wire
from swarm.wire.v1 import stage_pb2 as pb
from swarm.wire.v1 import tensor_pb2
from swarm.wire.v1.stage_pb2_grpc import StageServiceStub

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = list(range(100, 130))
HIDDEN = 256


@dataclass
class Middle:
    """The middle of three Stages, and a Worker with shards of it, spoken to as another Worker would."""

    plan: Plan
    client: RawClient
    stage: StageServiceStub
    shards: StageServiceStub

    def frame(self, session: bytes, hidden: tensor_pb2.Tensor | None, rows: int = 4, **changed: object) -> pb.MicroBatch:
        where = {"model_id": self.plan.model.model_id, "epoch": self.plan.epoch, "route": 0, "id": 5} | changed
        return pb.MicroBatch(steps=[step(session, TEXT, 0, rows)], hidden=hidden, **where)  # type: ignore[arg-type]

    async def hop(self, frame: pb.MicroBatch) -> list[pb.StepStatus]:
        """Send a micro-batch; the Steps that failed, once it is reported done."""
        call = self.stage.Hop()
        await call.write(frame)
        failed: list[pb.StepStatus] = []
        async with asyncio.timeout(60):
            while True:
                report = await call.read()
                assert report.id == frame.id
                failed += report.failed
                if report.done:
                    call.cancel()
                    return failed

    async def ask_experts(self, request: pb.ExpertRequest) -> pb.ExpertReply:
        call = self.shards.Experts()
        await call.write(request)
        async with asyncio.timeout(60):
            reply: pb.ExpertReply = await call.read()
        call.cancel()
        return reply

    async def serves(self) -> None:
        """A Session through all Stages and shards still gets its answer."""
        session = await self.client.open(64)
        assert bits(*await self.client.ask(step(session, TEXT, 0, 9)))
        await self.client.release(session)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def middle() -> AsyncIterator[Middle]:
    plan = plan_of([3, 6, 8], [("w3", b, (1, 6)) for b in range(8)])
    async with (
        workers_here(plan),
        raw(plan) as client,
        Credentials().channel(plan.worker("w1").address) as one,  # type: ignore[attr-defined]
        Credentials().channel(plan.worker("w3").address) as other,  # type: ignore[attr-defined]
    ):
        yield Middle(plan, client, StageServiceStub(one), StageServiceStub(other))


def hidden(rows: int = 4, size: int = HIDDEN, dtype: torch.dtype = torch.float32) -> tensor_pb2.Tensor:
    return to_wire(torch.zeros(rows, size, dtype=dtype))


def cut(tensor: tensor_pb2.Tensor) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(dtype=tensor.dtype, shape=tensor.shape, data=tensor.data[:-4])


def huge() -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_FP32, shape=[2**31, 2**31], data=b"")


BAD_HIDDEN: dict[str, Callable[[], tensor_pb2.Tensor | None]] = {
    "none at all": lambda: None,
    "too few rows": lambda: hidden(3),
    "too many rows": lambda: hidden(5),
    "another width": lambda: hidden(4, 255),
    "another dtype": lambda: hidden(dtype=torch.bfloat16),
    "fewer bytes than the shape says": lambda: cut(hidden()),
    "a shape beyond all memory": huge,
}


@pytest.mark.parametrize("what", BAD_HIDDEN)
async def test_a_hop_with_other_hidden_states_than_its_steps_is_refused(middle: Middle, what: str) -> None:
    session = await middle.client.open(64)
    [status] = await middle.hop(middle.frame(session, BAD_HIDDEN[what]()))
    assert status.code == pb.REFUSED
    assert status.worker == "w1"
    await middle.serves()
    assert bits(*await middle.client.ask(step(session, TEXT, 0, 9)))
    await middle.client.release(session)


@pytest.mark.parametrize(
    ("changed", "code"), [({"model_id": "x"}, pb.REFUSED), ({"epoch": 9}, pb.MOVED), ({"route": 3}, pb.REFUSED)], ids=str
)
async def test_a_hop_of_another_plan_is_told_so(middle: Middle, changed: dict[str, object], code: pb.Code) -> None:
    session = await middle.client.open(64)
    [status] = await middle.hop(middle.frame(session, hidden(), **changed))
    assert status.code == code
    await middle.client.release(session)
    await middle.serves()


async def test_a_hop_of_more_rows_than_the_plan_allows_is_refused(middle: Middle) -> None:
    session = await middle.client.open(64)
    frame = middle.frame(session, hidden(600))
    frame.steps[0].tokens[:] = [7] * 600
    [status] = await middle.hop(frame)
    assert status.code == pb.REFUSED
    await middle.client.release(session)
    await middle.serves()


async def test_a_hop_to_a_worker_that_has_only_shards_is_refused(middle: Middle) -> None:
    call = middle.shards.Hop()
    await call.write(middle.frame(b"x" * 16, hidden()))
    report = await call.read()
    assert [s.code for s in report.failed] == [pb.REFUSED]
    call.cancel()


def request(middle: Middle, rows: tensor_pb2.Tensor, experts: dict[int, list[int]], block: int = 4) -> pb.ExpertRequest:
    made = pb.ExpertRequest(id=3, model_id=middle.plan.model.model_id, epoch=1, block=block, hidden=rows)
    for expert, indices in experts.items():
        made.experts.add(expert=expert, rows=indices)
    return made


BAD_EXPERTS: dict[str, Callable[[Middle], pb.ExpertRequest]] = {
    "an expert held elsewhere": lambda m: request(m, hidden(2), {2: [0, 1]}),
    "a block the model does not have": lambda m: request(m, hidden(2), {1: [0]}, block=99),
    "rows beyond those sent": lambda m: request(m, hidden(2), {1: [0, 2]}),
    "an expert without rows": lambda m: request(m, hidden(2), {1: []}),
    "no experts": lambda m: request(m, hidden(2), {}),
    "no rows": lambda m: request(m, hidden(0), {1: []}),
    "more rows than the plan allows": lambda m: request(m, hidden(513), {1: [0]}),
    "one row a thousand times": lambda m: request(m, hidden(2), {1: [0] * 1000}),
    "another dtype": lambda m: request(m, hidden(2, dtype=torch.float16), {1: [0]}),
    "another width": lambda m: request(m, hidden(2, 300), {1: [0]}),
    "a shape beyond all memory": lambda m: request(m, huge(), {1: [0]}),
    "no shape": lambda m: request(m, tensor_pb2.Tensor(), {1: [0]}),
}


@pytest.mark.parametrize("what", BAD_EXPERTS)
async def test_an_expert_request_that_contradicts_itself_or_the_plan_is_refused(middle: Middle, what: str) -> None:
    reply = await middle.ask_experts(BAD_EXPERTS[what](middle))
    assert (reply.id, reply.code) == (3, pb.REFUSED)
    assert reply.message
    await middle.serves()
