"""A cache with a limit keeps to it: what was not used for longest goes, and never what somebody uses."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_quantized_cache import CPU, parts

from swarm.plan import Model
from swarm.weights.cache.folder import Setting, kept, note
from swarm.weights.cache.limit import Allowance, evict, read_limit, use, write_limit
from swarm.weights.cache.shelf import setting_of
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.describe import describe
from swarm.worker.supply import Supply

Write = Callable[..., Path]
MIB = 1 << 20
USER = """
import sys
from pathlib import Path
from swarm.weights.cache.limit import use
used = use(Path(sys.argv[1]))
print(1, flush=True)
input()
"""


@pytest.fixture
def source(write: Write) -> Path:
    return write(hidden_size=64, intermediate_size=96, num_hidden_layers=2)


def supply_of(model: Model, cache: Path) -> Supply:
    """What a Worker loads with, all parts loaded."""
    supply = Supply(model, CPU, lambda: Checkpoint.open(Path(model.source)), cache=cache)
    for part in parts(model):
        supply.part(part)
    return supply


def filled(cache: Path, *ages_s: float) -> list[Path]:
    """Models of 1 MiB each, used so long ago."""
    folders = []
    for number, age_s in enumerate(ages_s):
        setting = Setting(f"{number:032}", "int4", "cpu AVX512", "swarm 1")
        folder = setting.folder(cache)
        note(folder, setting, f"model {number}")
        (folder / "core-000.safetensors").write_bytes(bytes(MIB))
        os.utime(folder / "about.json", (1e9 - age_s, 1e9 - age_s))
        folders.append(folder)
    return folders


def there(folders: list[Path]) -> list[bool]:
    return [folder.exists() for folder in folders]


def test_what_was_not_used_for_longest_goes_first_and_no_more_than_must(tmp_path: Path) -> None:
    folders = filled(tmp_path, 30, 10, 20)
    write_limit(tmp_path, 3 * MIB)
    assert [k.model for k in Allowance(tmp_path).make_room(MIB // 2)] == ["model 0"]
    assert there(folders) == [False, True, True]
    assert [k.model for k in Allowance(tmp_path).make_room(2 * MIB)] == ["model 2", "model 1"]


def test_without_a_limit_nothing_goes(tmp_path: Path) -> None:
    folders = filled(tmp_path, 30, 10)
    assert Allowance(tmp_path).make_room(1 << 50) == []
    write_limit(tmp_path, 1)
    write_limit(tmp_path, 0)
    assert Allowance(tmp_path).make_room(1 << 50) == []
    (tmp_path / "limit").write_text("a lot")
    assert read_limit(tmp_path) == 0
    assert there(folders) == [True, True]


def test_what_a_process_uses_stays_until_it_is_killed(tmp_path: Path) -> None:
    old, new = filled(tmp_path, 30, 10)
    write_limit(tmp_path, 2 * MIB)
    with subprocess.Popen([sys.executable, "-c", USER, str(old)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None and user.stdout.readline() == b"1\n"
        Allowance(tmp_path).make_room(MIB // 2)
        assert there([old, new]) == [True, False], "the older one is used"
        with pytest.raises(OSError, match=r"exceed its limit of 2\.0 MiB: raise --cache-limit"):
            Allowance(tmp_path).make_room(MIB + MIB // 2)
        user.send_signal(signal.SIGKILL)
    assert [k.path for k in Allowance(tmp_path).make_room(MIB + MIB // 2)] == [old]
    assert kept(tmp_path) == []


def test_what_goes_while_somebody_comes_for_it_is_not_half_there(tmp_path: Path) -> None:
    (folder,) = filled(tmp_path, 30)
    with use(folder), use(folder):
        assert not evict(folder)
    assert evict(folder)
    with pytest.raises(FileNotFoundError):
        use(folder)


def test_a_load_evicts_for_its_own_model_and_the_one_before_is_made_anew(tmp_path: Path, source: Path) -> None:
    first, second = describe(str(source), "int8"), describe(str(source), "int4")
    supply_of(first, tmp_path)
    size = sum(k.num_bytes for k in kept(tmp_path))
    write_limit(tmp_path, size + size // 8)
    supply_of(second, tmp_path)
    assert [(k.dtype, k.parts) for k in kept(tmp_path)] == [("int4", len(parts(second)))]
    again = supply_of(first, tmp_path)
    assert [(k.dtype, k.parts) for k in kept(tmp_path)] == [("int8", len(parts(first)))]
    assert again.in_use is not None


def test_a_model_that_is_used_is_not_evicted_and_the_other_loads_without_a_cache(
    tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = describe(str(source), "int8"), describe(str(source), "int4")
    used = supply_of(first, tmp_path)
    size = sum(k.num_bytes for k in kept(tmp_path))
    write_limit(tmp_path, size + size // 8)
    with caplog.at_level(logging.WARNING):
        supply_of(second, tmp_path)
    assert sum("raise --cache-limit" in message for message in caplog.messages) == 1
    assert sum(k.num_bytes for k in kept(tmp_path)) <= size + size // 8
    folder = setting_of(first, CPU).folder(tmp_path)
    assert len(list(folder.glob("*.safetensors"))) == len(parts(first))
    assert used.in_use is not None and not used.in_use.closed


def test_a_limit_that_is_lowered_is_kept_at_the_next_load(tmp_path: Path, source: Path) -> None:
    model = describe(str(source), "int4")
    supply_of(model, tmp_path)
    size = sum(k.num_bytes for k in kept(tmp_path))
    folders = filled(tmp_path, 30, 10)
    write_limit(tmp_path, size + MIB + MIB // 2)
    supply = supply_of(model, tmp_path)
    assert there(folders) == [False, True]
    assert torch.is_tensor(supply.part(parts(model)[0]))
