"""Which Worker holds what: model shape, hardware and load in, a Plan out. Pure; neither torch nor ray."""

from cluster.planner.budget import Budget, Load, Prices, budget_of, needed_bytes
from cluster.planner.hardware import Hardware, Link, Links, Measured, Speed
from cluster.planner.make import make_plan, missing_bytes
from cluster.planner.reasons import NOT_USED, Reads, left_out, reads

__all__ = [
    "NOT_USED",
    "Budget",
    "Hardware",
    "Link",
    "Links",
    "Load",
    "Measured",
    "Prices",
    "Reads",
    "Speed",
    "budget_of",
    "left_out",
    "make_plan",
    "missing_bytes",
    "needed_bytes",
    "reads",
]
