"""A card that is not there: tensors that say they are on `cuda:0` and are computed on the CPU.

It finds what no CPU test can without a GPU: tensors of two devices in one operation, and how often the host waits for the
card. It says nothing about the numbers, the speed or the memory of a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

from swarm.model.kernels.bank import Bank, Packed
from swarm.model.kernels.lanes import Lanes
from swarm.model.kernels.port import Kernels

CARD = torch.device("cuda:0")
FETCHING = (
    Tensor.tolist,
    Tensor.item,
    Tensor.numpy,
    Tensor.cpu,
    Tensor.__int__,
    Tensor.__float__,
    Tensor.__bool__,
    Tensor.__index__,
)
WAITING = (torch.bincount, torch.unique, Tensor.unique, torch.nonzero, Tensor.nonzero)
"""What a card cannot do without telling the host how much came out."""


@dataclass(frozen=True)
class Again:
    """What records nothing: it does the work again (`swarm.model.kernels.replay.Recorder`)."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        return work


@dataclass
class Waits:
    """What made the host wait: the names of the operations, in order."""

    fetched: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)


class OnCard(Tensor):
    """A tensor that says it is on the card."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {}, Waits())


class _Card(TorchFunctionMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {}, self._waits)


def _computed(func: Any, args: Any, kwargs: Any, waits: Waits) -> Any:
    """`func` on the CPU; what comes out is where it would be."""
    if func is torch.device:
        return func(*args, **kwargs)
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
    mine, named, name = any(isinstance(t, OnCard) for t in tensors), _named(args, kwargs), getattr(func, "__name__", "")
    if mine and name == "__get__":
        prop = func.__self__.__name__
        if prop in ("device", "is_cuda"):
            return CARD if prop == "device" else True
    if func is Tensor.copy_:
        to_card, from_card = isinstance(args[0], OnCard), isinstance(args[1], OnCard)
    else:
        to_card, from_card = (mine or named == "cuda") and named != "cpu", mine
        if mine and named is None and not all(isinstance(t, OnCard) or t.dim() == 0 for t in tensors):
            raise RuntimeError(f"{name}: tensors on cuda:0 and on the CPU: {[type(t).__name__ for t in tensors]}")
    if from_card and (not to_card or func in FETCHING or func in WAITING):
        waits.fetched.append(name)
    elif to_card and not from_card and tensors:
        waits.sent.append(name)
    with torch._C.DisableTorchFunction():
        out = func(*_plain(args), **_plain(kwargs))
    if not to_card or func in FETCHING:
        return tree_map_only(OnCard, here, out)
    return tree_map_only(Tensor, lambda t: t if isinstance(t, OnCard) else t.as_subclass(OnCard), out)


def _named(args: Any, kwargs: Any) -> str | None:
    """The type of the device that a call names."""
    named = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.device)]
    named += [
        torch.device(x) for x in (*args[1:], kwargs.get("device")) if isinstance(x, str) and x.partition(":")[0] in ("cpu", "cuda")
    ]
    return named[0].type if named else None


def _plain(tree: Any) -> Any:
    """The same for the CPU. A tensor stays the object it is, so that what is changed in place is seen."""
    cpu = torch.device("cpu")
    tree = tree_map_only(torch.device, lambda _: cpu, tree)
    return tree_map_only(str, lambda x: "cpu" if x.startswith("cuda") else x, tree)


def here(x: Tensor) -> Tensor:
    """Where it really is."""
    return x.as_subclass(Tensor)


class Launching:
    """Kernels that meet tensors of the pretended card, and run where those really are."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        def launched(*args: Any, **kwargs: Any) -> Tensor:
            args, kwargs = ([_really(x) for x in args], {k: _really(x) for k, x in kwargs.items()})
            with torch._C.DisableTorchFunction():
                out: Tensor = getattr(self._kernels, name)(*args, **kwargs)
            return out.as_subclass(OnCard)

        return launched


def _really(x: Any) -> Any:
    """The same with all tensors where they really are, also in what holds some."""
    if isinstance(x, Bank):
        return Bank(tuple(p and _really(p) for p in x.parts))
    if isinstance(x, Lanes | Packed):
        return replace(x, **{f.name: _really(getattr(x, f.name)) for f in fields(x)})
    return here(x) if isinstance(x, Tensor) else x


@contextmanager
def pretended() -> Iterator[Waits]:
    """While it lasts, `cuda:0` can be named."""
    waits = Waits()
    with _Card(waits):
        yield waits
