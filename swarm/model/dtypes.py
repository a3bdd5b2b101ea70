"""The dtypes of a Plan, as torch names them."""

from __future__ import annotations

import torch

from swarm.errors import UsageError


class _Dtypes(dict[str, torch.dtype]):
    """A Plan can be made for more dtypes than there are weights for: those are refused wherever one is looked up."""

    def __missing__(self, name: str) -> torch.dtype:
        raise UsageError(f"no worker runs {name} yet: plan with --dtype {', '.join(self)}")


TORCH_DTYPES = _Dtypes(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)
