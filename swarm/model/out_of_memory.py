"""Whether an error says that memory is used up: torch has a class of its own for its own allocations on cards alone."""

from __future__ import annotations

import torch

SAID = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")
"""By torch on a CPU; by CUDA, for what is none of torch's allocations, and by Triton; by cuBLAS, whose workspace found no room."""


def ran_out(error: BaseException) -> bool:
    """Whether it does."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAID)
