"""Tests that need a card: `pytest tests/cuda` where there is one; skipped elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "model"))  # its Stages of the embedded model
sys.path.append(str(Path(__file__).parent.parent / "worker"))  # its conversation


@pytest.fixture(scope="session")
def card() -> str:
    if not torch.cuda.is_available():
        pytest.skip("there is no card here")
    return "cuda:0"
