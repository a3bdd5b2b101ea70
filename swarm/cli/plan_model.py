"""Which model `swarm plan` plans: one whose files can be looked at, or a shape alone."""

from __future__ import annotations

from dataclasses import replace

from swarm.bits import canonical
from swarm.config import kv_dtype
from swarm.errors import UsageError
from swarm.plan import Model
from swarm.shapes import SHAPES, known_shape
from swarm.weights.describe import describe

MODELS = f"A folder (its config.json is enough), a Hub id, nano, {' or '.join(SHAPES)}."


def model_to_plan(model: str, dtype: str, kv: str = "full") -> Model:
    """Its shape and dtype; no weights are read.

    Raises:
        UsageError: the dtype, what keys and values are kept as, or a model that is nothing known.
        ModelError: its files contradict themselves.
    """
    dtype, kept_as = canonical(dtype), kv_dtype(kv)
    shape = known_shape(model, dtype)
    return replace(shape if shape is not None else describe(model, dtype), kv=kept_as)


def check_can_be_loaded(model: str) -> None:
    """Raise UsageError where no Worker could serve a Plan of it, so that none is written."""
    if known_shape(model) is not None:
        raise UsageError(f"{model} has no weights that a worker could load: leave --out away, or give a folder or a Hub id")
