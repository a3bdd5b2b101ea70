"""What one thread of a process does on its cards at a time: record, or empty torch's cache, which fails while another records."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import lru_cache

import torch

_LOG = logging.getLogger(__name__)
_ALONE = threading.Lock()


class Graphs:
    """CUDA graphs, which share their memory: they never run at once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """See `Recorder.record`. What is set up once is set up before, on a stream beside."""
        with torch.cuda.device(self._device):
            before, beside = torch.cuda.current_stream(), _beside(self._device, threading.get_ident())
            try:
                beside.wait_stream(before)
                with torch.cuda.stream(beside):
                    work()
                before.wait_stream(beside)
                graph = torch.cuda.CUDAGraph()
                mode = "thread_local"  # another thread may be loading
                how = torch.cuda.graph(graph, pool=self._pool, stream=beside, capture_error_mode=mode)
                with _ALONE, how:
                    work()
            finally:
                torch.cuda.set_stream(before)  # torch leaves it where it was, if a recording cannot be ended
        replay: Callable[[], None] = graph.replay
        return replay


def empty_cache() -> None:
    """Give back to the cards what torch keeps and nobody has. What is not to be had now is there for this process later."""
    with _ALONE:
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:
            _LOG.warning("what is free in torch's cache cannot be given back to the card (%s)", error)


@lru_cache
def _beside(device: torch.device, thread: int) -> torch.cuda.Stream:
    """One for each thread that records: cuBLAS keeps a workspace for each stream that it has seen, for good."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)
    return stream
