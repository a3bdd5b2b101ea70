"""A file of the cache gives back what was put in, bit for bit, and nothing at all once a bit of it has changed."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mappings import flags, needs_large_pages
from safetensors.torch import load_file

from swarm.errors import CorruptWeights
from swarm.model.memory import ALIGNMENT
from swarm.weights.cache import file
from swarm.weights.cache.checksum import ROW_WORDS, checksum

SHAPES = st.lists(st.integers(0, 7), max_size=3).map(tuple)
DTYPES = st.sampled_from(list(file.SAFETENSORS))


def random(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.randint(0, 2, shape).to(dtype) if dtype == torch.bool else torch.randint(-100, 100, shape).to(dtype)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(SHAPES, DTYPES), max_size=5))
def test_tensors_come_back_aligned_and_equal_and_safetensors_reads_them_too(
    kinds: list[tuple[tuple[int, ...], torch.dtype]],
) -> None:
    tensors = {f"w.{i}": random(shape, dtype) for i, (shape, dtype) in enumerate(kinds)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.safetensors"
        file.write(path, {"of": "a test"}, tensors)
        found, others = file.read(path), load_file(path)
        assert list(Path(folder).iterdir()) == [path]
    assert found.about == {"of": "a test"}
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
        assert torch.equal(others[name], tensor)
        assert tensor.numel() == 0 or found.tensors[name].data_ptr() % ALIGNMENT == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tensors = {"w.a": torch.randn(300, 70), "w.b": torch.randint(0, 255, (11,), dtype=torch.uint8)}
    file.write(tmp_path / "part.safetensors", {}, tensors)
    return tmp_path / "part.safetensors"


def test_no_changed_bit_goes_unnoticed(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    places = {*range(8), *range(8, len(whole), 1009), *range(len(whole) - 16, len(whole))}
    for place in places:
        whole[place] ^= 1 << place % 8
        path.write_bytes(whole)
        with pytest.raises(CorruptWeights):
            file.read(path)
        whole[place] ^= 1 << place % 8
    path.write_bytes(whole)
    file.read(path)


def test_a_file_cut_anywhere_or_of_something_else_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for size in (0, 7, 8, 100, len(whole) // 2, len(whole) - 16, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CorruptWeights) as refusal:
            file.read(path)
        assert "fetch" not in str(refusal.value), "nobody can: it is made anew"
    for other in (whole + b"\0", bytes(len(whole)), b"no safetensors"):
        path.write_bytes(other)
        with pytest.raises(CorruptWeights):
            file.read(path)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_checksum_tells_apart_what_differs_in_one_word_or_in_the_order_of_two(data: st.DataObject) -> None:
    words = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 2**63, 2 * ROW_WORDS + 5, dtype=np.uint64)
    at, other = data.draw(st.lists(st.integers(0, len(words) - 1), min_size=2, max_size=2, unique=True))
    seen = {of(words)}
    words[at] += np.uint64(1 << data.draw(st.integers(0, 63)))
    seen.add(of(words))
    words[[at, other]] = words[[other, at]]
    seen.add(of(words))
    assert len(seen) == 3


def of(words: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> bytes:
    with mmap.mmap(-1, words.nbytes) as pages:
        pages[:] = words.tobytes()
        return checksum(pages, words.nbytes)


def test_writing_to_a_mapped_tensor_leaves_the_file_as_it_is(path: Path) -> None:
    file.read(path).tensors["w.a"].zero_()
    assert file.read(path).tensors["w.a"].any()


def test_what_is_mapped_survives_the_deletion_of_its_file(path: Path) -> None:
    found, want = file.read(path).tensors["w.a"], file.read(path).tensors["w.a"].clone()
    path.unlink()
    assert torch.equal(found, want)


def test_pages_that_cannot_be_read_are_an_error_and_kill_nobody(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from_file = torch.from_file

    def shrinks(name: str, shared: bool, size: int, dtype: torch.dtype) -> torch.Tensor:
        """A mapping whose file is cut once it is mapped: its pages fail as those of a broken disk do."""
        pages = from_file(name, shared=shared, size=size, dtype=dtype)
        os.truncate(path, 0)
        return pages

    monkeypatch.setattr(torch, "from_file", shrinks)
    with pytest.raises(OSError, match="Bad address"):
        file.read(path)


DIES = """
import os, sys, torch
from pathlib import Path
from swarm.weights.cache import file
os.fsync = lambda handle: os.kill(os.getpid(), 9)
file.write(Path(sys.argv[1]), {}, {"w": torch.ones(1000)})
"""


def test_who_is_killed_while_he_writes_leaves_the_old_file_or_none(path: Path) -> None:
    before = path.read_bytes()
    for target in (path, path.with_name("other.safetensors")):
        died = subprocess.run([sys.executable, "-c", DIES, str(target)], env=os.environ | {"PYTHONPATH": os.getcwd()})
        assert died.returncode == -9
    assert path.read_bytes() == before
    assert {p.name.startswith(file.UNFINISHED) for p in path.parent.iterdir() if p != path} == {True}


@needs_large_pages
def test_what_is_large_is_mapped_in_large_pages(tmp_path: Path) -> None:
    some, small = torch.zeros(3 << 20, dtype=torch.uint8), torch.zeros(11, dtype=torch.uint8)
    file.write(tmp_path / "large", {}, {"w": some})
    file.write(tmp_path / "small", {}, {"w": small})
    assert "hg" in flags(file.read(tmp_path / "large").tensors["w"].data_ptr())
    assert "hg" not in flags(file.read(tmp_path / "small").tensors["w"].data_ptr())


def test_what_is_mapped_holds_no_file_open(path: Path) -> None:
    """A model of many experts has more parts than a process may have open files."""
    found = [file.read(path) for _ in range(3)]
    assert not any(os.path.realpath(f"/proc/self/fd/{fd}") == str(path) for fd in os.listdir("/proc/self/fd"))
    assert all(torch.equal(each.tensors["w.a"], found[0].tensors["w.a"]) for each in found)
