"""What is quantized a second time is known, and said, before a byte of it is read; and what it cost, once it is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gguf_files import nano_gguf

from swarm.bits import Bits
from swarm.config import AGAIN, OwnCodes, said_again
from swarm.plan import Model, Plan, Route, Stage, WorkerSpec
from swarm.weights.describe import describe
from swarm.weights.losses import Again, Loss, again
from swarm.wire.overview import noted, overview
from swarm.wire.v1 import worker_pb2 as pb


def plan_of(model: Model) -> Plan:
    worker = WorkerSpec("w0", "a", "cpu", "127.0.0.1:1", 1 << 30)
    return Plan(1, model, (worker,), (Route((Stage("w0", 0, model.config.num_blocks),)),), notes=(model.again, "another"))


def test_codes_that_no_form_has_and_those_that_are_given_fewer_bits_are_quantized_a_second_time() -> None:
    none, eight = OwnCodes("down", "Q3_K", "", 256, 256, 64), OwnCodes("attention", "Q8_0", "int8/32", 256, 256, 32)
    assert said_again([none, eight], "int4/32+attention=int8/32") == f"{AGAIN}64 Q3_K (w2) into int4/32"
    assert said_again([none, eight], "int4") == f"{AGAIN}64 Q3_K (w2) into int4; 32 Q8_0 (attention) into int4"
    assert said_again([none, eight], "bf16") == "", "numbers are what the codes say"
    assert eight.again(Bits.of("int8/32")) is None
    assert said_again([], "int4") == ""


@pytest.mark.parametrize(("dtype", "said"), [("auto", ""), ("int4", "1 Q8_0 (head) into int8; 32 Q8_0 (attention) into int4")])
def test_a_file_says_what_is_quantized_again_before_it_is_read_and_a_plan_keeps_it(tmp_path: Path, dtype: str, said: str) -> None:
    model = describe(str(nano_gguf(tmp_path / "x.gguf", "Q8_0")), dtype)
    assert model.again.startswith(f"{AGAIN}{said}" if said else "")
    assert bool(model.again) == bool(said)
    plan = plan_of(model)
    assert Plan.from_json(plan.to_json()) == plan


def test_floats_are_quantized_but_once() -> None:
    assert describe("nano", "int4").again == ""


def test_status_adds_the_mean_error_of_all_workers_that_know_it() -> None:
    own = OwnCodes("down", "Q3_K", "", 256, 256, 64)
    plan = plan_of(replace(describe("nano", "int4"), own_codes=(own,)))
    assert noted(plan, [pb.WorkerStatus(model_id=plan.model.model_id)]) == [plan.model.again, "another"]
    told = [
        pb.WorkerStatus(model_id=plan.model.model_id, requantized=3, requantized_error=0.01),
        pb.WorkerStatus(model_id=plan.model.model_id, requantized=1, requantized_error=0.05),
        pb.WorkerStatus(model_id="another", requantized=1, requantized_error=9.0),
    ]
    assert overview(plan, dict(zip("abc", told, strict=True)))["notes"] == [
        f"{AGAIN}64 Q3_K (w2) into int4; mean squared error 2.0e-02 of the weights' squares",
        "another",
    ]


def test_what_it_cost_counts_only_what_had_few_bits_before() -> None:
    losses = [Loss("a", "head", 0.5), Loss("b", "head", 0.25, again=True), Loss("c", "head", 0.75, again=True)]
    assert again(losses) == Again(2, 0.5)
    assert again(losses) + Again(2, 1.5) == Again(4, 1.0)
    assert again([]) + Again() == Again()
