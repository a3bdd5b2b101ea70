"""The threads that torch computes on are found wherever it is installed, and share a task out among as many as there are."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from swarm.model.native import compiled
from swarm.model.native.one_row import one_row, part_of
from swarm.model.native.team import gnu_library


def test_a_library_is_found_in_a_folder_whose_name_has_spaces_and_only_where_it_is_still(tmp_path: Path) -> None:
    folder = tmp_path / "a b  c"
    folder.mkdir()
    library = folder / "libgomp-1.so.1"
    library.touch()
    lines = [
        "7f00-7f01 rw-p 00000000 00:00 0",
        "7f01-7f02 r-xp 00001000 08:01 17                 /lib/libc.so.6",
        "7f02-7f03 r-xp 00001000 08:01 18                 /lib/libgomp.so.1 (deleted)",
        f"7f03-7f04 r-xp 00001000 08:01 19                 {library}",
    ]
    assert gnu_library("\n".join(lines)) == library
    assert gnu_library("\n".join(lines[:3])) is None


def test_what_was_compiled_from_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_spec(compiled.NAME)
    if spec is None or spec.origin is None:
        pytest.skip("nothing was compiled")
    assert compiled.Compiled.at(Path(spec.origin))
    monkeypatch.setattr(compiled, "LAYOUT", compiled.LAYOUT + 1)
    with pytest.raises(OSError, match="other sources"):
        compiled.Compiled.at(Path(spec.origin))


@pytest.mark.parametrize("parts", [1, 2, 5, 17])
@pytest.mark.parametrize("threads", [2, 3, 4, 7])
def test_all_parts_are_computed_by_any_number_of_threads(parts: int, threads: int) -> None:
    one, generator = one_row(), torch.Generator().manual_seed(parts)
    if one is None or one.parallel is None:
        pytest.skip("nothing is compiled here, or torch computes on other threads")
    columns = 8192
    x = torch.randn(1, columns, generator=generator).bfloat16()
    w = torch.randn(4 * parts, columns, generator=generator).bfloat16()
    assert part_of(w) == 4
    alone = one.product(x, w)
    torch.set_num_threads(threads)
    for power in range(-25, 25):  # another answer each time: what is left out has that of the time before
        assert torch.equal(one.product(x * 2.0**power, w), alone * 2.0**power)
