"""Which Worker holds what: model shape, Devices and load in, a Plan out. Pure; neither torch nor ray."""

from cluster.planner.budget import Budget, Load, Prices, needed_bytes
from cluster.planner.make import make_plan

__all__ = ["Budget", "Load", "Prices", "make_plan", "needed_bytes"]
