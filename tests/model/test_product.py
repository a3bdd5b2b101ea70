"""The product, whichever kernel serves it."""

from __future__ import annotations

import pytest
import torch

from swarm.model.product import product


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(64, 32), (20, 10), (7, 33), (96, 160), (1, 8), (300, 257)], ids=str)
def test_every_row_count_and_odd_shape_is_rounded_once(shape: tuple[int, int], dtype: torch.dtype, threads: int) -> None:
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(shape, generator=generator).to(dtype)
    for n in (1, 2, 3, 16, 65):
        x = torch.randn(n, shape[1], generator=generator).to(dtype)
        want = x.double() @ w.double().t()
        got = product(x, w)
        assert (got.shape, got.dtype) == (want.shape, dtype)
        torch.testing.assert_close(got.double(), want, rtol=2 * torch.finfo(dtype).eps, atol=2e-4)
        turned = product(x.t().contiguous().t(), w)  # as the product before may have left it
        torch.testing.assert_close(turned, got, rtol=2 * torch.finfo(dtype).eps, atol=2e-4)
