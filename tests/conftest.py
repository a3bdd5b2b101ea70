"""What all tests share. Imports nothing heavy: the client's tests run where torch and ray are not installed."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples each time, however slow the machine; `--hypothesis-profile=long` looks for others.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
if shutil.which("nvidia-smi") is None:  # Triton asks when it is imported: without a card its interpreter runs kernels on the CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_configure() -> None:
    """Whatever starts the tests may ignore Ctrl-C, as a shell does for what runs in its background; what they start must not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts Ray, or hosts in namespaces, wants the machine for itself."""
    for item in items:
        if item.get_closest_marker("ray") or item.get_closest_marker("hosts"):
            item.add_marker(pytest.mark.alone)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test, so that none reads or writes the user's swarms and keys."""
    home = tmp_path / "swarm-home"
    monkeypatch.setenv("SWARM_HOME", str(home))
    monkeypatch.delenv("SWARM_KEY", raising=False)
    monkeypatch.delenv("SWARM_ADDRESS", raising=False)
    monkeypatch.delenv("SWARM_CACHE", raising=False)
    return home
