"""Weights taken apart into JSON and named tensors, and put together again: no pickle, and no class but those of weights.

A tensor is {"tensor": its name}, an object {"class": its name, "fields": ...}, a tuple {"tuple": [...]}, a torch dtype
{"dtype": its name}; None, numbers and text stand for themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor

from swarm.model.block import BlockCore
from swarm.model.experts import ExpertWeights
from swarm.model.stage import Head

Weights = Tensor | Head | BlockCore | ExpertWeights
"""What one part of a model is."""


def take_apart(weights: Any, tensors: dict[str, Tensor], name: str = "w") -> Any:
    """JSON of `weights`, whose tensors go into `tensors`."""
    if isinstance(weights, Tensor):
        tensors[name] = weights
        return {"tensor": name}
    if isinstance(weights, torch.dtype):
        return {"dtype": str(weights).removeprefix("torch.")}
    if isinstance(weights, tuple):
        return {"tuple": [take_apart(item, tensors, f"{name}.{i}") for i, item in enumerate(weights)]}
    if weights is None or isinstance(weights, bool | int | float | str):
        return weights
    assert type(weights) in classes().values(), f"{type(weights).__name__} is reached from no field of a part"
    inside = {f.name: take_apart(getattr(weights, f.name), tensors, f"{name}.{f.name}") for f in fields(weights) if f.init}
    return {"class": type(weights).__name__, "fields": inside}


def put_together(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `take_apart`. Raises KeyError, TypeError or ValueError where `tree` is not of today's classes."""
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    if "dtype" in tree:
        dtype = getattr(torch, tree["dtype"])
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"{tree['dtype']} is no dtype")
        return dtype
    if "tuple" in tree:
        return tuple(put_together(item, tensors) for item in tree["tuple"])
    kind = classes()[tree["class"]]
    if {f.name for f in fields(kind) if f.init} != set(tree["fields"]):
        raise ValueError(f"{tree['class']} has other fields today")
    return kind(**{name: put_together(item, tensors) for name, item in tree["fields"].items()})


@cache
def classes() -> dict[str, type]:
    """The classes of parts and of all that is in their fields, by name."""
    found: dict[str, type] = {}
    todo = list(_mentioned(Weights))
    while todo:
        kind = todo.pop()
        if is_dataclass(kind) and kind.__name__ not in found:
            found[kind.__name__] = kind
            todo += [inner for hint in get_type_hints(kind).values() for inner in _mentioned(hint)]
    return found


def _mentioned(hint: Any) -> Iterator[type]:
    """The classes in a type: itself, or those that it is made of."""
    if isinstance(hint, type):
        yield hint
    for inner in get_args(hint):
        yield from _mentioned(inner)
