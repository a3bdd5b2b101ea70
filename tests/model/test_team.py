"""The threads that torch computes on are found wherever it is installed."""

from __future__ import annotations

from pathlib import Path

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
