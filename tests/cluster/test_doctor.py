"""What `swarm doctor` finds in made-up machines, and what it reads of this one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from claimed_ports import free_range

from cluster.dial_back import Dialled
from cluster.doctor.clock import ClockFacts, clock_findings, read_synchronized
from cluster.doctor.disk import DiskFacts, Folder, disk_findings, read_folder
from cluster.doctor.driver import Driver, DriverCard, Use, parse, read_driver
from cluster.doctor.finding import Finding, Level, stopped
from cluster.doctor.gpus import GpuFacts, gpu_findings, read_gpus
from cluster.doctor.listeners import Listener, listeners
from cluster.doctor.memory import MemoryFacts, memory_findings, read_memory
from cluster.doctor.net import NetFacts, net_findings
from cluster.doctor.ports import Busy, PortFacts, port_findings, read_ports
from cluster.doctor.software import SoftwareFacts, missing_of, software_findings
from cluster.doctor.visit import ahead
from cluster.doctor.way import Measured, WayFacts, way_findings
from cluster.hardware import Card, Cards, Host
from cluster.network import Network, read_network
from cluster.place import Place
from cluster.ports import Ports
from cluster.roster import Versions
from swarm.wire.v1 import swarm_pb2 as pb

GIB = 2**30
ARCHS = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
RTX = DriverCard("NVIDIA GeForce RTX 3090", 24 * GIB, GIB)
P40 = DriverCard("Tesla P40", 24 * GIB, 0, capability=(6, 1))
SEEN_RTX = Card(0, RTX.name, (8, 6), 24 * GIB, 23 * GIB)
SEEN_P40 = Card(0, P40.name, (6, 1), 24 * GIB, None)
DRIVER = Driver("580.65.06", "13.0", (RTX,))


CPU_BUILD = Cards("2.13.0+cpu", (), ())
OLD = Cards("2.13.0+cu126", ("sm_61",), (replace(SEEN_P40, free_bytes=24 * GIB),))


def cu130(*cards: Card) -> Cards:
    return Cards("2.13.0+cu130", ARCHS, cards, "13.0")


def said(findings: Iterable[Finding]) -> str:
    """All of them as one text, a line each."""
    return "\n".join(f"{f.level} {f.what} -> {f.remedy}" for f in findings)


def only(findings: Iterable[Finding], level: Level) -> Finding:
    found = [f for f in findings if f.level == level]
    assert len(found) == 1, found
    return found[0]


def test_an_error_of_ours_becomes_a_finding_with_its_remedy() -> None:
    assert stopped("x", "port 1 (why: taken) is taken: free it") == Finding(
        "x", Level.STOP, "port 1 (why: taken) is taken", "free it"
    )
    assert stopped("x", "no remedy") == Finding("x", Level.STOP, "no remedy")


def test_a_card_that_fits_its_driver_and_torch_is_fine() -> None:
    found = list(gpu_findings(GpuFacts(DRIVER, "2.13.0+cu130", cu130(SEEN_RTX))))
    assert {f.level for f in found} == {Level.OK}
    assert "cuda:0 (NVIDIA GeForce RTX 3090, sm_86): 23.0 GiB of 24.0 GiB free" in said(found)


def test_a_p40_under_a_cuda_13_build_is_told_the_build_that_runs_it() -> None:
    found = only(gpu_findings(GpuFacts(Driver("580.65.06", "13.0", (P40,)), "2.13.0+cu130", cu130(SEEN_P40))), Level.STOP)
    assert "Tesla P40, sm_61) cannot be used: torch 2.13.0+cu130 has code for sm_75" in found.what
    assert found.remedy.startswith("install the CUDA 12.6 build of torch (+cu126), which still has code for it, or leave it out")


@pytest.mark.parametrize(
    ("facts", "parts"),
    [
        (GpuFacts(Driver("580.65.06", "13.0", (RTX,)), "2.13.0+cpu", CPU_BUILD),
         ("a build without CUDA, so that no card is used", "install the CUDA 13 build")),
        (GpuFacts(Driver("580.65.06", "13.0", (P40,)), "2.13.0+cpu", CPU_BUILD), ("install the CUDA 12.6 build",)),
        (GpuFacts(Driver("535.104", "12.2", (RTX,)), "2.13.0+cu130", cu130()),
         ("CUDA 13.0, and driver 535.104 runs CUDA up to 12.2", "update the driver to 580 or newer, or install the CUDA 12.6")),
        (GpuFacts(replace(DRIVER, cards=(RTX, RTX)), "2.13.0+cu130", cu130(SEEN_RTX), hidden_by="0"),
         ("the driver sees 2 cards and torch 1 card", "CUDA_VISIBLE_DEVICES=0 hides the others -> unset")),
        (GpuFacts(Driver(on_the_bus=("0x10de",)), "2.13.0+cu130", cu130()), ("an NVIDIA card and no driver", "install it")),
        (GpuFacts(Driver(trouble="Failed to initialize NVML: Driver/library version mismatch", on_the_bus=("0x10de",))),
         ("does not answer (Failed to initialize NVML", "restart the machine")),
        (GpuFacts(Driver(on_the_bus=("0x1002",))), ("the AMD card is not used",)),
        (GpuFacts(Driver("470.1", "11.4", (P40,)), "2.13.0+cu126", OLD),
         ("it has no bf16",)),
    ],
    ids=["cpu build", "cpu build, old card", "old driver", "hidden", "no driver", "mismatch", "amd", "no bf16"],
)  # fmt: skip
def test_a_card_that_would_silently_not_be_used_is_told_with_its_remedy(facts: GpuFacts, parts: tuple[str, ...]) -> None:
    text = said(gpu_findings(facts))
    assert all(part in text for part in parts), text
    assert "note" in text and "stop" not in text


def test_what_else_uses_a_card_is_named_largest_first() -> None:
    uses = (Use(12, "/usr/bin/Xorg", GIB), Use(34, "/opt/blender/blender", 9 * GIB))
    busy = replace(DRIVER, cards=(replace(RTX, used_bytes=11 * GIB, uses=uses),))
    text = said(gpu_findings(GpuFacts(busy, "2.13.0+cu130", cu130(replace(SEEN_RTX, free_bytes=13 * GIB)))))
    assert "13.0 GiB of 24.0 GiB free, something else uses the rest (blender (pid 34) 9.0 GiB, Xorg (pid 12) 1.0 GiB)" in text
    full = only(gpu_findings(GpuFacts(busy, "2.13.0+cu130", cu130(replace(SEEN_RTX, free_bytes=0)))), Level.STOP)
    assert "has no memory to give" in full.what and "blender" in full.what


def test_gpus_that_torch_cannot_look_at_stop_a_join() -> None:
    found = only(
        gpu_findings(GpuFacts(DRIVER, "2.13.0", None, "the GPUs did not answer torch in 120 s: use --device cpu")), Level.STOP
    )
    assert found.remedy == "use --device cpu"


SMI = """<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
  <driver_version>580.65.06</driver_version><cuda_version>13.0</cuda_version>
  <gpu id="00000000:01:00.0">
    <product_name>NVIDIA GeForce RTX 3090</product_name>
    <fb_memory_usage><total>24576 MiB</total><reserved>300 MiB</reserved><used>812 MiB</used></fb_memory_usage>
    <processes>
      <process_info>
        <pid>34</pid><type>C</type><process_name>blender</process_name><used_memory>N/A</used_memory>
      </process_info>
    </processes>
  </gpu>
</nvidia_smi_log>
"""


def test_what_nvidia_smi_prints_is_read() -> None:
    card = DriverCard("NVIDIA GeForce RTX 3090", 24 * GIB, 812 * 2**20, (Use(34, "blender", 0),))
    assert parse(SMI) == Driver("580.65.06", "13.0", (card,))
    assert "no XML" in parse("Killed").trouble


def test_the_driver_is_asked_where_wsl2_keeps_it_and_its_refusal_is_kept(tmp_path: Path) -> None:
    for name, (kind, vendor) in {"a": ("0x030000", "0x10de"), "b": ("0x020000", "0x8086")}.items():
        folder = tmp_path / "sys/bus/pci/devices" / name
        folder.mkdir(parents=True)
        (folder / "class").write_text(kind + "\n")
        (folder / "vendor").write_text(vendor + "\n")

    def only_wsl(command: object) -> tuple[int, str]:
        if "wsl" not in str(command):
            raise FileNotFoundError
        return 0, "8.6\n" if "--query-gpu=compute_cap" in str(command) else SMI

    driver = read_driver(tmp_path, only_wsl)
    assert driver.version == "580.65.06" and [card.capability for card in driver.cards] == [(8, 6)]
    refused = read_driver(tmp_path, lambda command: (9, "no devices\nwere found"))
    assert (refused.trouble, refused.on_the_bus) == ("no devices were found", ("0x10de",))


def test_little_free_memory_is_told_with_what_uses_it() -> None:
    host = Host(32 * GIB, 4 * GIB, 8, "a CPU")
    found = only(memory_findings(MemoryFacts(host, (("firefox", 7, 9 * GIB),))), Level.NOTE)
    assert "4.0 GiB of 32.0 GiB RAM free" in found.what and "firefox (pid 7) 9.0 GiB" in found.what
    assert only(memory_findings(MemoryFacts(replace(host, available_bytes=16 * GIB))), Level.OK)


def test_a_disk_that_cannot_keep_weights_is_told() -> None:
    roomy, small, locked = Folder("/big", True, 99 * GIB), Folder("/small", True, 3 * GIB), Folder("/locked", False, 99 * GIB)
    assert {f.level for f in disk_findings(DiskFacts(roomy, roomy))} == {Level.OK}
    assert "3.0 GiB free for /small; Mixtral" in only(disk_findings(DiskFacts(small, roomy)), Level.NOTE).what
    assert "--cache" in only(disk_findings(DiskFacts(locked, roomy)), Level.NOTE).remedy
    assert "SWARM_HOME" in only(disk_findings(DiskFacts(roomy, locked, roomy)), Level.STOP).remedy


@pytest.mark.parametrize(
    ("facts", "level", "part"),
    [
        (ClockFacts(True, 3 * 86400.0), Level.NOTE, "3 days ahead of the swarm's"),
        (ClockFacts(True, -600.0), Level.NOTE, "10 minutes behind the swarm's"),
        (ClockFacts(False, 2.0), Level.OK, "within 2 s"),
        (ClockFacts(False), Level.NOTE, "nothing keeps the clock right"),
        (ClockFacts(True), Level.OK, "kept right"),
    ],
)
def test_a_clock_that_is_off_is_told(facts: ClockFacts, level: Level, part: str) -> None:
    assert part in only(clock_findings(facts), level).what


def test_a_port_that_is_taken_stops_a_join_and_says_by_whom() -> None:
    taken = (Busy(7700, "Address already in use", Listener("ray, process 7")), Busy(7701, "Address already in use"))
    found = only(port_findings(PortFacts("7700-7731", busy=taken)), Level.STOP)
    assert found.what == "port 7700 cannot be listened on (Address already in use by ray, process 7), nor can 1 more"
    assert only(port_findings(PortFacts("1-2", "--ports 1-2 is no range: write another")), Level.STOP).remedy == "write another"


def test_a_firewall_is_told_with_the_line_that_opens_it_unless_others_got_through() -> None:
    guarded = PortFacts("7700-7731", firewalls=("ufw",))
    assert only(port_findings(guarded), Level.NOTE).remedy == "allow it: sudo ufw allow 7700:7731/tcp"
    assert "firewall-cmd --add-port=7700-7731/tcp" in said(port_findings(replace(guarded, firewalls=("firewalld",))))
    assert {f.level for f in port_findings(replace(guarded, proven=True))} == {Level.OK}


def test_a_range_that_programs_draw_ports_from_is_told() -> None:
    assert "32768-60999" in only(port_findings(PortFacts("40000-40031", drawn=(32768, 60999))), Level.NOTE).what


ETH = ("eth0", "192.168.1.30")


@pytest.mark.parametrize(
    ("network", "host", "level", "part"),
    [
        (Network((ETH,)), "192.168.1.30", Level.OK, "others dial 192.168.1.30 (eth0)"),
        (Network((("lo", "127.0.0.1"),)), "127.0.0.1", Level.STOP, "only this machine itself reaches 127.0.0.1"),
        (Network((("docker0", "172.17.0.1"),)), "172.17.0.1", Level.STOP, "docker0, a bridge to containers"),
        (Network((("eth0", "172.21.200.37"),), "wsl2-nat"), "172.21.200.37", Level.STOP, "a WSL2 NAT address"),
        (Network((("eth0", "172.17.0.2"),), "container"), "172.17.0.2", Level.NOTE, "inside a container"),
        (Network((ETH, ("wlan0", "10.0.0.5"))), "192.168.1.30", Level.NOTE, "there are other addresses, too: 10.0.0.5 (wlan0)"),
    ],
)
def test_what_stands_in_the_way_of_others_is_told(network: Network, host: str, level: Level, part: str) -> None:
    assert part in only(net_findings(NetFacts(network, host, "7700-7731")), level).what


def test_a_bridge_that_is_not_used_and_a_nat_that_others_get_through_are_no_trouble() -> None:
    both = Network((ETH, ("docker0", "172.17.0.1")))
    assert {f.level for f in net_findings(NetFacts(both, "192.168.1.30", "7700-7731"))} == {Level.OK}
    nat = Network((("eth0", "172.21.200.37"),), "wsl2-nat")
    assert {f.level for f in net_findings(NetFacts(nat, "172.21.200.37", "7700-7731", proven=True))} == {Level.OK}
    assert "networkingMode=mirrored" in said(net_findings(NetFacts(nat, "172.21.200.37", "7700-7731")))


OURS = Versions("0.1.0", "3.11", "2.60.0", "2.13.0+cpu")


def test_other_versions_than_the_swarms_stop_a_join_with_the_install_line() -> None:
    found = only(software_findings(SoftwareFacts(OURS, theirs=replace(OURS, torch="2.14.0"))), Level.STOP)
    assert "runs torch 2.13.0+cpu, the swarm 2.14.0" in found.what and "torch==2.14.0" in found.remedy
    assert "what the swarm runs" in only(software_findings(SoftwareFacts(OURS, theirs=OURS)), Level.OK).what


def test_a_laptop_is_told_what_a_rig_has_and_that_it_can_chat() -> None:
    laptop = Versions("0.1.0", "3.12", "", "")
    found = only(software_findings(SoftwareFacts(laptop, ("ray", "torch"), OURS)), Level.STOP)
    assert found.what == "ray and torch are not installed, which a rig has"
    assert "pip install '.[rig]'" in found.remedy and "chatting" in found.remedy
    assert only(software_findings(SoftwareFacts(replace(laptop, python="3.13"))), Level.STOP).what.startswith("this is Python 3.13")


PLACE = Place("192.168.1.30", (7700, 7731), "7700-7731", addresses=("192.168.1.30",))
WAY = WayFacts(
    "192.168.1.20:7700", "desk", PLACE, rtt_s=0.001, seen_as="192.168.1.30",
    dialled=(Dialled("attic", "192.168.1.20", 7700, ""), Dialled("attic", "192.168.1.20", 7731, "")),
    ways=((pb.Neighbour(rig_name="attic", worker_address="192.168.1.20:7731"), ""),),
    links=(Measured("attic", 0.4e-3, 117e6, 110e6),),
)  # fmt: skip


def test_a_way_that_is_open_is_told_with_its_figures() -> None:
    text = said(way_findings(WAY))
    assert "attic reaches this machine at 192.168.1.30, on all 2 ports" in text
    assert "attic: 0.4 ms there and back, 0.94 Gbit/s there, 0.88 back" in text and "note" not in text and "stop" not in text


def test_a_way_that_is_shut_slow_or_not_there_is_told() -> None:
    shut = replace(WAY, dialled=(Dialled("attic", "192.168.1.20", 7700, "no answer"),))
    assert "allow TCP 7700-7731 in desk's firewall" in only(way_findings(shut), Level.STOP).remedy
    one_way = replace(WAY, ways=((WAY.ways[0][0], "no answer"),))
    assert "attic's firewall" in only(way_findings(one_way), Level.STOP).remedy
    for link in (Measured("attic", 0.02, 117e6, 117e6), Measured("attic", 0.001, 117e6, 2e6)):
        assert "cable" in only(way_findings(replace(WAY, links=(link,))), Level.NOTE).remedy
    assert "could not be measured" in only(way_findings(replace(WAY, links=(Measured("attic", trouble="x"),))), Level.NOTE).what
    gone = replace(WAY, trouble="the swarm does not answer: check the address")
    assert list(way_findings(gone)) == [Finding("way", Level.STOP, "the swarm does not answer", "check the address")]


def test_this_machine_is_read(tmp_path: Path) -> None:
    memory = read_memory()
    assert memory.host.total_bytes > 0 and len(memory.uses) == 3 and memory.uses[0][2] >= memory.uses[1][2] > 0
    assert read_folder(tmp_path / "not" / "yet") == Folder(str(tmp_path / "not" / "yet"), True, read_folder(tmp_path).free_bytes)
    assert ("lo", "127.0.0.1") in read_network().interfaces
    assert read_synchronized() in (True, False, None)
    assert missing_of(("grpc", "no_such_module")) == ("no_such_module",)
    if not Path("/dev/nvidiactl").exists():
        pytest.importorskip("torch")
        facts = read_gpus(None)
        assert facts.driver.version == "" and facts.cards is not None and facts.cards.cards == () and facts.cards.archs is not None


def test_who_has_a_port_of_this_machine_is_found() -> None:
    span = free_range()
    ports = Ports.lay_out(span, 1)
    assert read_ports(span, ports, "127.0.0.1", False).busy == ()
    with socket.create_server(("127.0.0.1", ports.door)):
        (busy,) = read_ports(span, ports, "127.0.0.1", False).busy
        assert (busy.port, busy.why) == (ports.door, "Address already in use") and f"process {os.getpid()}" in busy.user.who
        assert not busy.user.swarm and ports.door in listeners(Path("/"))


def test_ports_of_the_swarm_that_runs_here_are_called_its_own_and_stop_nothing() -> None:
    span = free_range()
    ports = Ports.lay_out(span, 1)
    inner = "import socket, time; s = socket.create_server(('127.0.0.1', %d)); print(flush=True); time.sleep(600)"
    outer = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, *sys.argv[4:]]))"
    for worker, port, part in ((True, ports.workers[0], "worker attic/cpu"), (False, ports.door, "Ray")):
        words = ["-c", inner % port, *(("swarm.worker", "--name", "attic/cpu") if worker else ())]
        command = [sys.executable, "-c", outer, "/usr/bin/swarm", "up", "nano", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as up:
            try:
                assert up.stdout and up.stdout.readline()
                facts = read_ports(span, ports, "127.0.0.1", True)
            finally:
                os.killpg(up.pid, signal.SIGKILL)
        found = only(port_findings(facts), Level.NOTE)
        assert found.what == f"1 of {span} are used by the swarm that runs here (swarm up, process {up.pid}): {part}"


def test_a_clock_that_agrees_is_not_called_off() -> None:
    now = time.time()
    assert ahead(now + 1, now, now + 2) == 0.0 and ahead(now - 5, now, now + 2) == 5.0 and ahead(now + 5, now, now + 2) == -3.0
