"""What was quantized once is mapped at the next start, is never trusted blindly, and never stops a load."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from swarm.bits import Form
from swarm.config import Activation, Sizes
from swarm.model.experts import ExpertWeights
from swarm.model.memory import num_bytes
from swarm.model.quant.matrix import matrix_of
from swarm.model.quant.stacked import Stacked
from swarm.plan import Model
from swarm.weights.cache import file, shelf
from swarm.weights.cache.folder import Setting, kept, prune
from swarm.weights.cache.shelf import setting_of
from swarm.weights.cache.tree import Weights, put_together, take_apart
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.codes import Codes
from swarm.weights.describe import describe
from swarm.worker.holdings import Part
from swarm.worker.supply import Supply

Write = Callable[..., Path]
CPU = torch.device("cpu")
DTYPES = ["int8", "int4"]
MIXED = ["int8/16", "int4/32+attention=int8+head=bf16", "bf16+down=int4/128"]
"""Forms of other classes; `test_matrices_of_every_class_come_back` has those that no dtype leads to."""


@pytest.fixture
def source(write: Write) -> Path:
    return write(hidden_size=64, intermediate_size=96, num_hidden_layers=2)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def parts(model: Model) -> list[Part]:
    key, blocks = (model.model_id, model.dtype), range(model.config.num_blocks)
    cores = [Part(key, "core", b) for b in blocks]
    experts = [Part(key, "expert", b, e) for b in blocks for e in range(model.config.num_experts)]
    return [Part(key, "embedding"), *cores, Part(key, "head"), *experts]


def loaded(model: Model, cache: Path | None) -> dict[Part, Weights]:
    """All parts, as a Worker's start gets them."""
    supply = Supply(model, CPU, lambda: Checkpoint.open(Path(model.source)), cache=cache)
    return {part: supply.part(part) for part in parts(model)}


def size(weights: Weights) -> int:
    return num_bytes(weights) if isinstance(weights, torch.Tensor) else weights.num_bytes


def apart(weights: Weights) -> tuple[Any, dict[str, torch.Tensor]]:
    tensors: dict[str, torch.Tensor] = {}
    return take_apart(weights, tensors), tensors


def same(one: dict[Part, Weights], two: dict[Part, Weights]) -> bool:
    def equal(a: Weights, b: Weights) -> bool:
        (tree, tensors), (other_tree, others) = apart(a), apart(b)
        return tree == other_tree and all(torch.equal(t, others[n]) and t.dtype == others[n].dtype for n, t in tensors.items())

    return one.keys() == two.keys() and all(equal(one[p], two[p]) for p in one)


@pytest.mark.parametrize("dtype", [*DTYPES, *MIXED])
def test_a_second_start_needs_none_of_the_models_files_and_has_the_same_weights(source: Path, cache: Path, dtype: str) -> None:
    model = describe(str(source), dtype)
    first = loaded(model, cache)
    shutil.rmtree(source)
    second = loaded(model, cache)
    assert same(first, second)
    assert [size(w) for w in second.values()] == [size(w) for w in first.values()]


def test_what_can_be_mapped_is_used_where_it_lies(source: Path, cache: Path) -> None:
    model = describe(str(source), "int4")
    loaded(model, cache)
    one, two = loaded(model, cache), loaded(model, cache)
    folder = setting_of(model, CPU).folder(cache)
    maps = Path("/proc/self/maps").read_text()
    for part in parts(model):
        assert maps.count(str(folder / f"{part.file_name}.safetensors")) == 2
    assert same(one, two)


def test_what_a_worker_gives_back_is_not_mapped_any_more(source: Path, cache: Path) -> None:
    model = describe(str(source), "int4")
    loaded(model, cache)
    held = loaded(model, cache)
    gone = next(p for p in held if p.kind == "expert")
    del held[gone]
    names = [line.rsplit("/", 1)[-1] for line in Path("/proc/self/maps").read_text().splitlines() if str(cache) in line]
    assert sorted(names) == sorted(f"{p.file_name}.safetensors" for p in held)


def test_matrices_of_every_class_come_back() -> None:
    q = torch.randint(0, 16, (48, 64), dtype=torch.uint8)
    scale, zero, order = torch.rand(48, 2), torch.rand(48, 2), torch.randperm(64)
    int4 = Codes(q, scale, zero, Form("int4", 32))
    int8 = Codes(q.to(torch.int8), scale, zero, Form("int8", 32))
    ordered = Codes(q, scale, zero, Form("int4", 32), order)
    row = Codes(q.to(torch.int8), torch.rand(48, 1), None, Form("int8"))
    matrix = matrix_of([int4, int8, ordered, row], torch.bfloat16)
    assert isinstance(matrix, Stacked)
    weights = ExpertWeights(matrix, torch.ones(2, 2), Activation(limit=7.0))
    tree, tensors = apart(weights)
    found = put_together(json.loads(json.dumps(tree)), tensors)
    x = torch.randn(3, 64, dtype=torch.bfloat16)
    assert torch.equal(found.w13.product(x), matrix.product(x))
    assert (found.activation, found.num_bytes) == (weights.activation, weights.num_bytes)
    assert {type(part) for part in found.w13.parts} == {type(part) for part in matrix.parts}


@pytest.mark.parametrize("name", ["core-001", "expert-001-002", "embedding"])
@pytest.mark.parametrize("damage", ["a bit", "half", "nothing left", "another part"])
def test_a_damaged_file_is_noticed_and_made_anew(
    source: Path, cache: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = describe(str(source), "int4")
    first = loaded(model, cache)
    path = setting_of(model, CPU).folder(cache) / f"{name}.safetensors"
    whole = bytearray(path.read_bytes())
    other = bytearray(path.with_name("expert-000-000.safetensors").read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(
        bytes({"a bit": whole, "half": whole[: len(whole) // 2], "nothing left": bytearray(), "another part": other}[damage])
    )
    assert same(loaded(model, cache), first)
    assert [str(path) in r.getMessage() and "made anew" in r.getMessage() for r in caplog.records] == [True]
    caplog.clear()
    assert same(loaded(model, cache), first)
    assert not caplog.records


def test_a_model_whose_files_changed_behind_their_headers_is_made_anew(source: Path, cache: Path) -> None:
    model = describe(str(source), "int4")
    first = loaded(model, cache)
    path = source / "model.safetensors"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4096] = bytes(4096)  # as somebody does who trains it on; its ends, which make the id, stay
    path.write_bytes(data)
    assert describe(str(source), "int4") == model
    changed = loaded(model, cache)
    assert not same(changed, first)
    assert same(changed, loaded(model, None))
    assert same(changed, loaded(model, cache))


def test_a_copy_of_the_models_files_in_the_hubs_store_is_known_by_its_name(source: Path, cache: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    path = (source / "model.safetensors").rename(blobs / "0123abcd")
    (source / "model.safetensors").symlink_to(path)
    assert shelf.marks(source) == {"model.safetensors": "0123abcd"}
    os.utime(path, (1, 1))
    assert shelf.marks(source) == {"model.safetensors": "0123abcd"}


def test_weights_that_are_in_their_files_already_are_not_cached(source: Path, cache: Path) -> None:
    loaded(describe(str(source), "bf16"), cache)
    loaded(describe(str(source), "fp32"), cache)
    assert kept(cache) == []


def test_weights_that_take_fewer_bytes_than_in_their_files_are_cached(write: Write, cache: Path) -> None:
    model = describe(str(write(dtype=torch.float32)), "bf16")
    first = loaded(model, cache)
    assert kept(cache)[0].parts == len(parts(model))
    assert same(loaded(model, cache), first)


def test_another_dtype_layout_or_version_is_another_folder(source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = describe(str(source), "int4")
    settings = [
        setting_of(model, CPU),
        setting_of(replace(model, dtype="int8"), CPU),
        setting_of(replace(model, model_id="x"), CPU),
    ]
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another CPU")
    settings.append(setting_of(model, CPU))
    monkeypatch.setattr(shelf, "VERSION", 99)
    settings.append(setting_of(model, CPU))
    assert len({s.folder(cache) for s in settings}) == 5


@pytest.mark.parametrize("text", ["../../elsewhere", "/etc", "..", ""])
def test_no_plan_leads_out_of_the_cache(cache: Path, text: str) -> None:
    folder = Setting(text, text, "cpu", "1").folder(cache)
    assert folder.resolve().is_relative_to(cache) and folder.name not in ("", "..")
    assert folder != Setting(f"{text}/", text, "cpu", "1").folder(cache)


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As a full disk: the system refuses to write on (and Python ignores its signal)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_more_costs_a_warning_and_not_the_load(
    source: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = describe(str(source), "int4")
    with no_file_larger_than(4096):
        first = loaded(model, cache)
    assert same(first, loaded(model, None))
    assert [os.strerror(errno.EFBIG) in r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [True]
    assert not list(cache.glob("*/*/*.safetensors"))
    assert not list(cache.glob(f"*/*/{file.UNFINISHED}*"))


def test_the_cache_does_not_fill_its_disk_to_the_brim(
    source: Path, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "RESERVE_BYTES", shutil.disk_usage(source).total)
    loaded(describe(str(source), "int4"), cache)
    assert ["swarm cache prune" in r.getMessage() for r in caplog.records] == [True]
    assert not list(cache.glob("*/*/*.safetensors"))


def test_a_folder_that_may_not_be_written_costs_a_warning_and_not_the_load(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    model = describe(str(source), "int4")
    assert same(loaded(model, tmp_path / "taken"), loaded(model, None))
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1


def test_two_who_make_the_same_parts_at_once_both_have_them(source: Path, cache: Path) -> None:
    model = describe(str(source), "int4")
    found: list[dict[Part, Weights]] = []
    threads = [threading.Thread(target=lambda: found.append(loaded(model, cache))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert all(same(found[0], other) for other in (*found, loaded(model, cache)))
    names = {p.name for p in setting_of(model, CPU).folder(cache).iterdir()}
    assert names == {f"{p.file_name}.safetensors" for p in parts(model)} | {"about.json"}


def test_what_somebody_left_unfinished_long_ago_is_cleared_away_and_what_is_being_written_is_not(source: Path, cache: Path) -> None:
    model = describe(str(source), "int4")
    loaded(model, cache)
    folder = setting_of(model, CPU).folder(cache)
    old, new = folder / f"{file.UNFINISHED}old", folder / f"{file.UNFINISHED}new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - 2 * shelf.ABANDONED_S))
    loaded(model, cache)
    assert (old.exists(), new.exists()) == (False, True)


def test_the_cache_says_what_it_holds_and_when_it_was_used(source: Path, cache: Path) -> None:
    for dtype in DTYPES:
        loaded(describe(str(source), dtype), cache)
    int4 = describe(str(source), "int4")
    os.utime(setting_of(int4, CPU).folder(cache) / "about.json", (0, 0))
    latest, oldest = kept(cache)
    assert (latest.dtype, oldest.dtype, oldest.last_used) == ("int8", "int4", 0.0)
    assert (oldest.model, oldest.model_id, oldest.parts) == ("model", int4.model_id, len(parts(int4)))
    assert oldest.num_bytes >= Sizes(int4.config, "int4").weights
    loaded(int4, cache)
    assert kept(cache)[0].dtype == "int4"
    assert [k.dtype for k in prune(cache, lambda k: k.dtype == "int8")] == ["int8"]
    assert [k.dtype for k in kept(cache)] == ["int4"]
    prune(cache, lambda k: True)
    assert list(cache.iterdir()) == []


def test_no_class_and_no_fields_but_those_of_weights_come_out_of_a_file() -> None:
    with pytest.raises(KeyError):
        put_together({"class": "Popen", "fields": {"args": "true"}}, {})
    with pytest.raises(ValueError, match="other fields"):
        put_together({"class": "Head", "fields": {"norm": 1}}, {})
    with pytest.raises(TypeError):
        put_together({"dtype": "load"}, {})
    tree, tensors = apart(torch.ones(2))
    assert torch.equal(put_together(json.loads(json.dumps(tree)), tensors), torch.ones(2))
