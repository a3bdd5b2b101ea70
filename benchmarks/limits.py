"""What makes Workers of one machine unequal: a share of a CPU, a way that takes longer, a link that carries less."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 5_000
"""So short that what is left of a period when a Stage ends is little beside what the Stage takes."""
HOSTS = {"swarm-bench-a": "10.79.0.1", "swarm-bench-b": "10.79.0.2"}
RATE = "50mbit"


def may_limit() -> str:
    """Why no CPU quota can be set here; empty where one can."""
    if os.geteuid() != 0:
        return "CPU quotas need root"
    return "" if _v1() or _v2() else f"no CPU controller under {CGROUPS} can be written to"


def _v1() -> bool:
    return os.access(CGROUPS / "cpu" / "cpu.cfs_quota_us", os.F_OK)


def _v2() -> bool:
    enabled = CGROUPS / "cgroup.subtree_control"
    return enabled.is_file() and "cpu" in enabled.read_text().split()


@contextmanager
def quota(name: str, pid: int, share: float) -> Iterator[None]:
    """Give a process that share of one CPU, by a cgroup of either version; whole CPUs are left as they are.

    All its threads stay on one CPU. The kernel hands a quota out to each CPU on which a thread wakes, a period's at once: were the
    loop's on another than the compute thread's, what it does not use would be lost, which no slower Device does.
    """
    if share >= 1:
        yield
        return
    group = (CGROUPS / "cpu" if _v1() else CGROUPS) / f"swarm-bench-{os.getpid()}-{name}"
    group.mkdir()
    try:
        if _v1():
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(int(share * PERIOD_US)))
        else:
            (group / "cpu.max").write_text(f"{int(share * PERIOD_US)} {PERIOD_US}")
        (group / "cgroup.procs").write_text(str(pid))
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {_last_cpu()})
        yield
    finally:
        parent = group.parent / "cgroup.procs"
        for left in (group / "cgroup.procs").read_text().split():
            parent.write_text(left)
        group.rmdir()


def _last_cpu() -> int:
    return max(os.sched_getaffinity(0))


@asynccontextmanager
async def relayed(target: str, delay_s: float) -> AsyncIterator[str]:
    """The address of a relay to `target` that keeps every byte for so long, each way."""
    command = [sys.executable, "-m", "benchmarks.relay", target, str(delay_s)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield f"127.0.0.1:{(await process.stdout.readline()).decode().strip()}"
    finally:
        process.terminate()
        await process.wait()


def may_shape() -> str:
    """Why no two hosts with a shaped link can be made here; empty where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    return "" if shutil.which("ip") and shutil.which("tc") else "ip and tc (iproute2) are not installed"


@contextmanager
def two_hosts() -> Iterator[dict[str, str]]:
    """Two network namespaces on a cable that carries `RATE` each way; name to address.

    Raises:
        subprocess.CalledProcessError: the kernel does not allow it.
    """
    first, second = HOSTS
    try:
        for name in HOSTS:
            _run(f"ip netns add {name}")
        _run(f"ip link add cable-a netns {first} type veth peer name cable-b netns {second}")
        for (name, address), cable in zip(HOSTS.items(), ("cable-a", "cable-b"), strict=True):
            _run(f"ip -n {name} addr add {address}/24 dev {cable}")
            _run(f"ip -n {name} link set {cable} up")
            _run(f"ip -n {name} link set lo up")
            _run(f"ip netns exec {name} tc qdisc add dev {cable} root tbf rate {RATE} burst 16kb latency 400ms")
        yield HOSTS
    finally:
        for name in HOSTS:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _run(words: str) -> None:
    subprocess.run(words.split(), check=True, capture_output=True)
