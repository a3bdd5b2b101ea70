"""Which Worker holds what: model shape, Devices and load in, a Plan out. Pure; neither torch nor ray."""

from cluster.planner.budget import Budget, Load, Prices, budget_of, needed_bytes
from cluster.planner.make import make_plan
from cluster.planner.reasons import Reads, left_out, reads

__all__ = ["Budget", "Load", "Prices", "Reads", "budget_of", "left_out", "make_plan", "needed_bytes", "reads"]
