"""Stages whose decode Steps are recorded, and Stages on a pretended card: the numbers of a CPU, and what the host waits for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace

import pretend_card
import pytest
import torch
from pretend_card import Again, Launching, pretended
from stages import A_CONVERSATION, Loaded

from swarm.model.kernels import choice, replay
from swarm.model.kernels.port import Plain
from swarm.model.rows import Rows, Segment

BLOCKS = (0, 5)


class Spoiled:
    """Records another result than it was given."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


class Counting:
    """Does the work again, and counts what it records."""

    count = 0

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.count += 1
        return work


class Refusing:
    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("not today")


@pytest.fixture(scope="module")
def want() -> list[torch.Tensor]:
    return Loaded(blocks=BLOCKS).conversation()


def close(got: list[torch.Tensor], want: list[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=0, atol=1e-4) for a, b in zip(got, want, strict=True))


def test_recorded_steps_have_the_bits_of_steps_that_are_not(want) -> None:
    eager, recorded = (Loaded(blocks=BLOCKS, kernels=Plain(), recorder=r) for r in (None, Again()))
    first, second = eager.conversation(), recorded.conversation()
    assert all(map(torch.equal, first, second))
    assert close(first, want)
    assert recorded.stage.decoding is not None and len(recorded.stage.decoding._recorded) == 2  # 1 row, and 2


@pytest.mark.parametrize("recorder", [Spoiled(), Refusing()], ids=["other bits", "an error"])
def test_a_recording_that_fails_costs_speed_and_no_answer(want, recorder, caplog) -> None:
    loaded = Loaded(blocks=BLOCKS, kernels=Plain(), recorder=recorder)
    assert close(loaded.conversation(), want)
    assert "kernel by kernel" in caplog.text and not loaded.stage.decoding.trusted


def test_recordings_beyond_what_is_kept_are_made_again_with_the_same_bits(monkeypatch) -> None:
    recorder = Counting()
    eager, recorded = (Loaded(blocks=BLOCKS, kernels=Plain(), recorder=r) for r in (None, recorder))
    monkeypatch.setattr(replay, "MOST_RECORDED", 1)
    for _ in range(2):
        assert all(map(torch.equal, eager.conversation(), recorded.conversation()))
    assert recorder.count > 2 and len(recorded.stage.decoding._recorded) == 1


def test_what_is_no_number_is_no_reason_to_record_nothing() -> None:
    loaded = Loaded(blocks=BLOCKS, kernels=Plain(), recorder=Again())
    loaded.stage.embedding.fill_(float("nan"))
    loaded.conversation()
    assert loaded.stage.decoding.trusted and loaded.stage.decoding._recorded


def test_whoever_counts_blocks_hears_of_all_of_them_where_they_are_replayed() -> None:
    loaded = Loaded(blocks=BLOCKS, kernels=Plain(), recorder=Again())
    loaded.conversation()
    heard: list[int] = []
    rows = Rows.of((Segment(b"other", 0, 1, 0),))
    assert loaded.cache.reserve(b"other", 1)
    loaded.stage.forward(loaded.stage.embed([5]), rows, loaded.cache, lambda: heard.append(len(heard)))
    assert heard == list(range(len(BLOCKS)))


def test_kernels_that_were_not_tried_for_lack_of_memory_are_tried_again(monkeypatch) -> None:
    said = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("Triton Error [CUDA]: out of memory")]

    def tried(*_: object) -> str:
        if said:
            raise said.pop()
        return "wrong"

    monkeypatch.setattr(choice, "differences", tried)
    monkeypatch.setattr(choice, "find_spec", lambda name: object())
    for name in ("triton", "triton.errors", "swarm.model.kernels.on_triton"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(TritonError=KeyError, OnTriton=Plain))
    card = torch.device("cuda:7")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            choice.kernels_for(card, torch.float16)
    assert choice.kernels_for(card, torch.float16) is None
    choice._judged.cache_clear()


def test_choices_that_stay_on_a_card_are_counted_as_those_that_do_not() -> None:
    counts = []
    for kernels, recorder in ((None, None), (Plain(), Again())):
        loaded = Loaded(blocks=BLOCKS, kernels=kernels, recorder=recorder)
        loaded.conversation()
        loaded.stage.choices.fetch()
        counts.append([block.moe.counts for block in loaded.stage.blocks.values()])
    assert counts[0] == counts[1]
    assert sum(counts[0][0]) == 2 * sum(sum(call.values()) for call in A_CONVERSATION)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8", "int4"])
def test_no_operation_meets_tensors_of_two_devices(dtype: str, monkeypatch) -> None:
    monkeypatch.setattr(choice, "_tried", lambda *_: "pretended")
    with pretended():
        got = Loaded(dtype, "cuda:0", (0,)).conversation()
    assert all(pretend_card.here(x).isfinite().all() for x in got)


def test_decode_steps_on_a_card_never_make_the_host_wait(want) -> None:
    with pretended() as waits:
        loaded = Loaded(device="cuda:0", blocks=BLOCKS, kernels=Launching(Plain()), recorder=Again())
        loaded.conversation()
        before = len(waits.fetched)
        got = loaded.conversation()
    assert [pretend_card.here(x).shape for x in got] == [x.shape for x in want]
    assert waits.fetched[before:] == ["bincount", "tolist"] * len(BLOCKS), "the prompt of 37 rows asks once a Block, decode never"
    assert close([pretend_card.here(x) for x in got], want)


def test_mixing_is_found_on_a_pretended_card() -> None:
    with pretended(), pytest.raises(RuntimeError, match="on the CPU"):
        torch.zeros(2, device="cuda:0") + torch.zeros(2)
