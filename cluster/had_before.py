"""What Workers that serve nothing now held before: in their memory, or in the cache on their Rigs' disks, it still is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from cluster.roster import Device
from swarm.errors import PlacementError
from swarm.plan import Plan, Standby


class HadBefore:
    """Remembers by the names of Workers, which Rigs keep, whatever their address, the latest Plan that had each."""

    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}

    def beside(self, before: Plan | None, devices: Iterable[Device]) -> Plan | None:
        """A Plan with what the other Devices had as copies that they stand by with: so that they get it again.

        Args:
            before: the Plan in force. None stays None: what is decided anew has no Blocks that could stay.
            devices: that can be planned on.
        """
        if before is None:
            return None
        self._note(before)
        serving = {w.name for w in before.workers}
        others = [d for d in devices if d.name not in serving]
        for device in others:
            if (plan := _served_by(device)) is not None:
                self._plans[device.name] = plan
        copies = {d.name: list(self._blocks(d.name, before)) for d in others}
        back = [d for d in others if copies[d.name]]
        standbys = (Standby(d.name, first, end) for d in back for first, end in copies[d.name])
        return replace(before, workers=(*before.workers, *(d.spec for d in back)), standbys=(*before.standbys, *standbys))

    def _note(self, plan: Plan) -> None:
        self._plans |= {w.name: plan for w in plan.workers}

    def _blocks(self, name: str, before: Plan) -> Iterator[tuple[int, int]]:
        """The Blocks of its Stage that it had whole, one by one."""
        plan = self._plans.get(name)
        if plan is None or (plan.model.model_id, plan.model.dtype) != (before.model.model_id, before.model.dtype):
            return
        route = plan.route_of(name)
        stage = plan.stage_of(name, route) if route is not None else None
        for block in stage.blocks if stage else ():
            if not plan.remote_experts(name, block):
                yield block, block + 1


def _served_by(device: Device) -> Plan | None:
    """The Plan that its Worker says it serves: another Coordinator's, where it is not the one in force."""
    if not (device.status and device.status.epoch and device.status.plan):
        return None
    try:
        return Plan.from_json(device.status.plan, f"the plan of {device.name}")
    except PlacementError:
        return None  # of another version
