"""How many swarms the seeded loops look at; and `benchmarks`, whose homes and policies are judged here too, can be imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3]))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regret-swarms", type=int, default=600, help="swarms on which make_plan is held against brute force")


@pytest.fixture
def regret_swarms(request: pytest.FixtureRequest) -> int:
    count: int = request.config.getoption("--regret-swarms", default=600)  # unknown where all tests run
    return count
