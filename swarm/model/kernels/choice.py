"""Which kernels a Device computes with: Triton's where they prove right on it, else none."""

from __future__ import annotations

import logging
import subprocess
from functools import lru_cache
from importlib.util import find_spec

import torch

from swarm.model.kernels.port import Kernels
from swarm.model.kernels.proof import differences
from swarm.model.kernels.recording import Graphs
from swarm.model.kernels.replay import Recorder
from swarm.model.out_of_memory import ran_out

_LOG = logging.getLogger(__name__)
BECAUSE = "answers stay right, in 4 bits slowly, and may differ in their last bits from those of cards whose kernels run"


def kernels_for(device: torch.device, dtype: torch.dtype) -> Kernels | None:
    """None on a CPU, which torch has kernels for, and on a card where Triton's are not right.

    They are tried first: a card compiles them, which takes seconds and a C compiler, and what no machine of its kind has run
    before may be wrong on it. Raises what says that memory is used up: that is no verdict, and they are tried again.
    """
    return None if device.type != "cuda" else _judged(device, dtype)


@lru_cache
def _judged(device: torch.device, dtype: torch.dtype) -> Kernels | None:
    wrong = "triton is not installed" if find_spec("triton") is None else _tried(device, dtype)
    if wrong:
        _LOG.warning("the kernels for %s in %s are not used (%s): %s", device, dtype, wrong, BECAUSE)
        return None
    from swarm.model.kernels.on_triton import OnTriton

    return OnTriton()


def recorder_for(device: torch.device, dtype: torch.dtype) -> Recorder | None:
    """What records decode Steps: the one switch between recorded Steps and kernels that are started one by one."""
    return Graphs(device) if kernels_for(device, dtype) is not None else None


def _tried(device: torch.device, dtype: torch.dtype) -> str:
    """What is wrong with Triton's kernels here; empty where nothing is."""
    from triton.errors import TritonError

    from swarm.model.kernels.on_triton import OnTriton

    try:
        return differences(OnTriton(), device, dtype)
    except (RuntimeError, OSError, subprocess.CalledProcessError, TritonError) as error:
        if ran_out(error):
            raise
        return f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else 'no reason given'}"
