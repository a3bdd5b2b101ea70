"""What a rig offers, on machines that are files and cards that are values."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.device_spec import DeviceSpec
from cluster.hardware import Card, Cards, Device, Host, detect, probe_cards, read_host
from cluster.hardware.cards import has_code
from cluster.hardware.detect import GPU_MARGIN_BYTES
from swarm.errors import DeviceError, UsageError

GIB = 2**30
ARCHS = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
HOST = Host(32 * GIB, 30 * GIB, 8, "a CPU")
RTX3090 = Card(0, "RTX 3090", (8, 6), 24 * GIB, 23 * GIB)
RTX3060 = Card(1, "RTX 3060", (8, 6), 12 * GIB, 11 * GIB)
P40 = Card(1, "Tesla P40", (6, 1), 24 * GIB, None)
FUTURE = Card(1, "RTX 9090", (13, 0), 24 * GIB, None)


def rig(
    *specs: DeviceSpec,
    cards: tuple[Card, ...] = (),
    host: Host = HOST,
    ram: int | None = None,
    exclude: tuple[str, ...] = (),
    threads: int | None = None,
) -> tuple[Device, ...]:
    return detect(specs, ram, exclude, threads, cards=lambda: Cards("2.13.0", ARCHS, cards), host=lambda: host)


def test_every_gpu_is_offered_with_what_is_free_less_a_margin() -> None:
    found = rig(cards=(RTX3090, RTX3060))
    assert [(d.name, d.torch_device, d.memory_bytes, d.threads, d.label) for d in found] == [
        ("cuda:0", "cuda:0", 23 * GIB - GPU_MARGIN_BYTES, 0, "RTX 3090"),
        ("cuda:1", "cuda:1", 11 * GIB - GPU_MARGIN_BYTES, 0, "RTX 3060"),
    ]


def test_without_a_gpu_half_the_ram_is_one_cpu_device_with_all_cores() -> None:
    assert rig() == (Device("cpu", "cpu", 16 * GIB, 8, "a CPU"),)


def test_no_more_ram_is_offered_unasked_than_is_free() -> None:
    assert rig(host=Host(32 * GIB, 5 * GIB, 8, ""))[0].memory_bytes == 5 * GIB


def test_ram_is_a_device_beside_the_gpus() -> None:
    assert [(d.name, d.memory_bytes) for d in rig(cards=(RTX3090,), ram=20 * GIB)][1] == ("cpu", 20 * GIB)
    assert [(d.name, d.memory_bytes) for d in rig(ram=20 * GIB)] == [("cpu", 20 * GIB)]


def test_several_cpu_devices_have_names_of_their_own_and_share_the_cores_evenly() -> None:
    found = rig(DeviceSpec("cpu", 4 * GIB), DeviceSpec("cpu", 2 * GIB), DeviceSpec("cpu"))
    assert [(d.name, d.torch_device, d.memory_bytes, d.threads) for d in found] == [
        ("cpu:0", "cpu", 4 * GIB, 2),
        ("cpu:1", "cpu", 2 * GIB, 2),
        ("cpu:2", "cpu", 10 * GIB, 2),
    ]
    assert [d.threads for d in rig(*[DeviceSpec("cpu", GIB)] * 9)] == [1] * 9
    assert [d.threads for d in rig(*[DeviceSpec("cpu", GIB)] * 2, threads=3)] == [3, 3]


def test_devices_asked_for_replace_the_default() -> None:
    assert [d.name for d in rig(DeviceSpec("cuda:1", 5 * GIB), cards=(RTX3090, RTX3060))] == ["cuda:1"]
    assert rig(DeviceSpec("cuda:1", 5 * GIB), cards=(RTX3090, RTX3060))[0].memory_bytes == 5 * GIB


def test_cpu_devices_alone_do_not_look_for_gpus() -> None:
    def never() -> Cards:
        raise AssertionError

    assert detect([DeviceSpec("cpu", GIB)], cards=never, host=lambda: HOST)[0].name == "cpu"


def test_an_excluded_gpu_is_left_out_also_where_this_torch_cannot_run_it() -> None:
    assert [d.name for d in rig(cards=(RTX3090, P40), exclude=("cuda:1",))] == ["cuda:0"]
    assert [d.name for d in rig(cards=(RTX3090,), exclude=("cuda:0",))] == ["cpu"]


@pytest.mark.parametrize("name", ["bogus", "cuda:1", "cpu:0", "cuda:", ""])
def test_a_name_that_leaves_nothing_out_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=f"no {name} here to leave out: name one of cpu, cuda:0 "):
        rig(cards=(RTX3090,), exclude=(name,))
    with pytest.raises(DeviceError, match=f"no {name} here to leave out: name one of cpu "):
        rig(DeviceSpec("cpu", GIB), exclude=(name,))


@pytest.mark.parametrize(("card", "remedy"), [(P40, "CUDA 12.6 build"), (FUTURE, "newer build")])
def test_a_gpu_that_this_torch_has_no_code_for_is_refused_by_name_with_the_remedy(card: Card, remedy: str) -> None:
    with pytest.raises(DeviceError, match=remedy) as refused:
        rig(cards=(RTX3090, card))
    assert card.name in str(refused.value)
    assert "--exclude cuda:1" in str(refused.value)


def test_more_than_there_is_is_refused_with_the_sum() -> None:
    with pytest.raises(DeviceError, match=r"40\.0 GiB .* 32\.0 GiB"):
        rig(DeviceSpec("cpu", 30 * GIB), DeviceSpec("cpu", 10 * GIB))
    with pytest.raises(DeviceError, match=r"23\.5 GiB asked, 22\.5 GiB of its 24\.0 GiB"):
        rig(DeviceSpec("cuda:0", int(23.5 * GIB)), cards=(RTX3090,))
    with pytest.raises(DeviceError, match="cpu=SIZE"):
        rig(DeviceSpec("cpu", 20 * GIB), DeviceSpec("cpu"))
    with pytest.raises(DeviceError, match="nothing to give"):
        rig(cards=(Card(0, "full", (8, 6), 24 * GIB, 2**20),))


def test_a_card_that_makes_no_context_is_named_and_keeps_no_other_from_being_used(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from cluster.hardware.look import look

    def zeros(count: int, device: str) -> None:
        if device == "cuda:1":
            raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")

    properties = SimpleNamespace(name="RTX 3090", major=8, minor=6, total_memory=24 * GIB, uuid="x")
    monkeypatch.setattr(torch, "zeros", zeros)
    for name, answer in (
        ("device_count", lambda: 2),
        ("get_arch_list", lambda: ["sm_80", "sm_86"]),
        ("get_device_properties", lambda index: properties),
        ("mem_get_info", lambda index: (23 * GIB, 24 * GIB)),
    ):
        monkeypatch.setattr(torch.cuda, name, answer)
    cards = look().cards
    assert [(c.free_bytes, c.broken) for c in cards] == [(23 * GIB, ""), (None, "CUDA error: out of memory")]
    assert [d.name for d in rig(DeviceSpec("cuda:0"), cards=cards)] == ["cuda:0"]
    assert [d.name for d in rig(cards=cards, exclude=("cuda:1",))] == ["cuda:0"]
    with pytest.raises(DeviceError, match=r"cuda:1 .*torch said: CUDA error: out of memory\).* --exclude cuda:1"):
        rig(cards=cards)


def test_a_gpu_that_is_not_there_or_named_twice_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"no cuda:3 .* cuda:0 \(RTX 3090\)"):
        rig(DeviceSpec("cuda:3"), cards=(RTX3090,))
    with pytest.raises(DeviceError, match="no cuda:3 here to leave out"):
        rig(cards=(RTX3090,), exclude=("cuda:3",))
    with pytest.raises(UsageError, match="twice"):
        rig(DeviceSpec("cuda:0", GIB), DeviceSpec("cuda:0"), cards=(RTX3090,))
    with pytest.raises(DeviceError, match="no device is left"):
        rig(exclude=("cpu",))
    with pytest.raises(UsageError, match="--threads"):
        rig(threads=0)


@pytest.mark.parametrize(
    ("capability", "runs"),
    [
        *[((6, 1), False), ((7, 0), False), ((7, 5), True), ((8, 0), True), ((8, 9), True), ((9, 0), True)],
        *[((10, 3), True), ((11, 0), False), ((12, 0), True), ((12, 1), True), ((13, 0), True)],
    ],
)
def test_code_runs_on_its_own_major_version_and_ptx_on_newer_ones(capability: tuple[int, int], runs: bool) -> None:
    assert has_code(capability, ARCHS) is runs


def test_code_for_one_exact_card_runs_on_no_other() -> None:
    assert has_code((9, 0), ["sm_90a"])
    assert not has_code((9, 1), ["sm_90a"])
    assert not has_code((8, 0), [])


def test_the_real_probe_answers_in_a_process_of_its_own() -> None:
    pytest.importorskip("torch")
    assert probe_cards().torch


def machine(root: Path, files: dict[str, str]) -> Path:
    basis = {
        "proc/meminfo": "MemTotal:       33554432 kB\nMemFree: 1 kB\nMemAvailable:   31457280 kB\n",
        "proc/cpuinfo": "processor : 0\nmodel name\t: Ryzen 5\n",
    }
    for name, text in (basis | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_machine_without_cgroups_offers_what_meminfo_says(tmp_path: Path) -> None:
    host = read_host(machine(tmp_path, {}))
    assert (host.total_bytes, host.available_bytes, host.label) == (32 * GIB, 30 * GIB, "Ryzen 5")
    assert host.cores >= 1


def test_a_cgroup_v2_limit_anywhere_above_counts(tmp_path: Path) -> None:
    group = {
        "proc/self/cgroup": "0::/slice/box\n",
        "sys/fs/cgroup/slice/box/memory.max": "max\n",
        "sys/fs/cgroup/slice/memory.max": f"{8 * GIB}\n",
        "sys/fs/cgroup/slice/memory.current": f"{3 * GIB}\n",
        "sys/fs/cgroup/slice/memory.stat": f"anon 5\ninactive_file {GIB}\n",
        "sys/fs/cgroup/slice/cpu.max": "100000 100000\n",
    }
    host = read_host(machine(tmp_path, group))
    assert (host.total_bytes, host.available_bytes, host.cores) == (8 * GIB, 6 * GIB, 1)


def test_a_cgroup_v1_limit_counts_and_the_value_for_none_does_not(tmp_path: Path) -> None:
    group = {
        "proc/self/cgroup": "4:memory:/box\n2:cpu,cpuacct:/\n1:name=systemd:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{20 * GIB}\n",
        "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{4 * GIB}\n",
        "sys/fs/cgroup/memory/box/memory.usage_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    }
    host = read_host(machine(tmp_path, group))
    assert (host.total_bytes, host.available_bytes) == (4 * GIB, 3 * GIB)


def test_inside_a_container_the_limit_at_the_mounted_top_counts(tmp_path: Path) -> None:
    group = {
        "proc/self/cgroup": "0::/not/visible/here\n",
        "sys/fs/cgroup/memory.max": f"{2 * GIB}\n",
        "sys/fs/cgroup/memory.current": "0\n",
    }
    assert read_host(machine(tmp_path, group)).total_bytes == 2 * GIB
