"""All that `swarm doctor` looks at, gathered and judged."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.address import bind_host, is_loopback
from cluster.doctor.clock import ClockFacts, clock_findings, read_synchronized
from cluster.doctor.disk import DiskFacts, disk_findings, read_folder
from cluster.doctor.finding import Finding, Level
from cluster.doctor.gpus import GpuFacts, gpu_findings, read_gpus
from cluster.doctor.memory import memory_findings, read_memory
from cluster.doctor.net import NetFacts, net_findings
from cluster.doctor.ports import PortFacts, port_findings, read_ports
from cluster.doctor.software import SoftwareFacts, missing_of, software_findings
from cluster.doctor.visit import Visit, visit
from cluster.doctor.way import Measured, WayFacts, way_findings
from cluster.network import Network, read_network
from cluster.place import Place
from cluster.ports import Ports
from cluster.versions import own_versions
from swarm.cli import settings
from swarm.cli.install import RIG_MODULES
from swarm.errors import SwarmError, UsageError
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.worker.echo import measure_both_ways

LINK_S = 2.0
"""For measuring the link to one rig."""


@dataclass(frozen=True)
class Machine:
    """What this machine would join with.

    Args:
        swarm: host:port of the swarm to visit; empty: none.
    """

    name: str
    host: str
    ports: str
    cache: Path | None
    swarm: str = ""
    key: str = ""

    @property
    def swarm_host(self) -> str:
        return self.swarm.rpartition(":")[0].strip("[]")


@dataclass(frozen=True)
class Examined:
    """What was found, and what was measured of the links to the swarm's rigs."""

    findings: tuple[Finding, ...]
    links: tuple[Measured, ...] = ()

    @property
    def fits(self) -> bool:
        return all(f.level != Level.STOP for f in self.findings)

    def document(self) -> dict[str, Any]:
        """What `--json` shows."""
        links = [
            {"rig": k.rig, "rtt_ms": k.rtt_s * 1e3, "there_gbit_s": k.there_bytes_s * 8e-9, "back_gbit_s": k.back_bytes_s * 8e-9}
            for k in self.links
            if not k.trouble
        ]
        findings = [{"about": f.about, "level": f.level.value, "what": f.what, "remedy": f.remedy} for f in self.findings]
        return {"fits": self.fits, "findings": findings, "links": links}


async def examine(machine: Machine) -> Examined:
    """Look at everything; takes some seconds."""
    gpus, network = await asyncio.gather(
        asyncio.to_thread(read_gpus, os.environ.get("CUDA_VISIBLE_DEVICES")), asyncio.to_thread(read_network)
    )
    ports = _ports(machine, gpus)
    visited = await _visit(machine, network, ports) if machine.swarm else None
    findings = tuple(_findings(machine, gpus, network, ports, visited))
    return Examined(findings, visited.way.links if visited else ())


def _findings(machine: Machine, gpus: GpuFacts, network: Network, ports: PortFacts, visited: Visit | None) -> Iterator[Finding]:
    proven = visited is not None and bool(visited.way.dialled)
    missing = missing_of(tuple(RIG_MODULES))
    yield from software_findings(SoftwareFacts(own_versions(), missing, visited.theirs if visited else None))
    yield from gpu_findings(gpus)
    yield from memory_findings(read_memory())
    yield from disk_findings(_disk(machine.cache))
    yield from clock_findings(ClockFacts(read_synchronized(), visited.ahead_s if visited else None))
    yield from port_findings(ports)
    yield from net_findings(NetFacts(network, machine.host, machine.ports, proven or is_loopback(machine.swarm_host)))
    if visited:
        yield from way_findings(visited.way)


def _ports(machine: Machine, gpus: GpuFacts) -> PortFacts:
    devices = max(1, len(gpus.cards.cards) if gpus.cards else len(gpus.driver.cards))
    try:
        return read_ports(machine.ports, Ports.lay_out(machine.ports, devices), bind_host(machine.host), bool(machine.swarm))
    except UsageError as error:
        return PortFacts(machine.ports, str(error))


def _disk(cache: Path | None) -> DiskFacts:
    hub = settings.hub_cache(cache)
    return DiskFacts(read_folder(settings.cache_dir(cache)), read_folder(settings.state_dir()), read_folder(hub) if hub else None)


async def _visit(machine: Machine, network: Network, ports: PortFacts) -> Visit:
    """Ask the swarm, then measure the link to each of its rigs, one after the other."""
    tried = () if ports.trouble else Ports.lay_out(machine.ports, 1).all
    free = tuple(port for port in tried if port not in {b.port for b in ports.busy})
    place = Place(machine.host, free, machine.ports, network.kind, network.addresses)
    try:
        credentials = Credentials(machine.key)
        visited = await visit(credentials, machine.swarm, machine.name, place, bind_host(machine.host))
    except SwarmError as error:
        return Visit(WayFacts(machine.swarm, machine.name, place, str(error)))
    links = [await _measure(credentials, machine, neighbour) for neighbour, why in visited.way.ways if not why]
    return replace(visited, way=replace(visited.way, links=tuple(links)))


async def _measure(credentials: Credentials, machine: Machine, neighbour: pb.Neighbour) -> Measured:
    try:
        figures = await measure_both_ways(credentials, machine.host, neighbour.worker_address, LINK_S)
    except SwarmError as error:
        return Measured(neighbour.rig_name, trouble=str(error))
    return Measured(neighbour.rig_name, *figures)
