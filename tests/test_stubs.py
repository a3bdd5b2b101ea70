"""The generated stubs are what `make protos` would write now."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_the_generated_stubs_are_those_of_the_protos(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    from swarm.wire.generate import ROOT, generate

    generate(tmp_path)
    kept = {p.name: p.read_text() for p in (ROOT / "swarm" / "wire" / "v1").iterdir() if "_pb2" in p.name and p.is_file()}
    made = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert sorted(made) == sorted(kept), "run `make protos`"
    stale = [name for name in made if made[name] != kept[name]]
    assert not stale, "run `make protos`"
