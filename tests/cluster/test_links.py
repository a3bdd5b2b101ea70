"""What a link is priced at: Hops as they go, which on one Rig is past gRPC, and clients through it."""

from __future__ import annotations

import pytest

from cluster.planner import Hardware, Load, Measured, Speed
from cluster.planner.hardware import Link, Links
from cluster.planner.predict import predict
from swarm.config import ModelConfig
from swarm.plan import Model, Plan, Route, Stage, WorkerSpec

CONFIG = ModelConfig("MixtralForCausalLM", 4096, 14336, 8, 32, 8, 128, 8, 2, 32000, 32768, 1e-5, 1e6, False, "bf16", 1, (2,))
MODEL = Model("mixtral", "mixtral", "1" * 16, "bf16", CONFIG)
LOAD = Load(sessions=2, context=512)
HOPS_S, CALLS_S = 0.2e-3, 0.8e-3


def stream_s(link: Link, stages: int) -> float:
    """Between two tokens of one stream, over so many Stages on the Rig from which the client talks."""
    speed, names = Speed.of(20e9, 1e12, 20e-6, 2), ("w0", "w1")[:stages]
    devices = tuple(Measured(WorkerSpec(n, "a", "cpu", f"{n}:1", 2**40), speed) for n in names)
    route = Route(tuple(Stage(n, 8 * i // stages, 8 * (i + 1) // stages) for i, n in enumerate(names)))
    plan = Plan(1, MODEL, tuple(d.spec for d in devices), (route,))
    return 1 / predict(plan, Hardware(devices, Links(inside=link), "a"), LOAD).tokens_per_s


def test_on_one_rig_a_hop_is_priced_as_it_goes_and_a_client_through_grpc() -> None:
    alike, apart = Link(CALLS_S, 1e9), Link(HOPS_S, 1e9, calls_rtt_s=CALLS_S)
    assert stream_s(apart, 1) == pytest.approx(stream_s(alike, 1), rel=1e-12), "without a Hop the client's ways are all there is"
    assert stream_s(alike, 2) - stream_s(apart, 2) == pytest.approx((CALLS_S - HOPS_S) / 2), "one Hop, one way"
