"""What all tests share. Imports nothing heavy: the client's tests run where torch and ray are not installed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples each time, however slow the machine; `--hypothesis-profile=long` looks for others.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
if shutil.which("nvidia-smi") is None:  # Triton asks when it is imported: without a card its interpreter runs kernels on the CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")


ALONE = ("tests/ray/", "tests/chaos/", "tests/cluster/test_hosts_at_the_door.py")
"""What starts Ray, whole swarms or namespaces: one process runs all of it, and begins with it, since it takes longest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(ALONE))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Over several processes a file stays whole, for its fixtures; see ALONE."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return ALONE[0] if nodeid.startswith(ALONE) else nodeid.partition("::")[0]

    return ByFile(config, log)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test, so that none reads or writes the user's swarms and keys."""
    home = tmp_path / "swarm-home"
    monkeypatch.setenv("SWARM_HOME", str(home))
    monkeypatch.delenv("SWARM_KEY", raising=False)
    monkeypatch.delenv("SWARM_ADDRESS", raising=False)
    monkeypatch.delenv("SWARM_CACHE", raising=False)
    return home
