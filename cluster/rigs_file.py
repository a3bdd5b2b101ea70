"""rigs.toml: the Rigs that a person has, or thinks of having, for `swarm plan --rigs`.

Format: TOML 1.0, as docs/placement.md shows. Sizes in GiB, bandwidths in 1e9 bytes/s, links in 1e9 bit/s, round trips in ms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cluster.hardware.known_cards import KnownCard, known_card, nearest_names
from cluster.planner.hardware import Link, Links
from cluster.toml_table import Table, read_table, repeated
from swarm.errors import UsageError

MOST_BYTES = 1 << 20
"""The largest rigs file that is read."""
MOST_DEVICES = 256
"""More than anybody's home has, and than a search over them ends soon for."""
GRPC_RTT_S = 0.3e-3
"""gRPC's own share of a round trip, on both ends together: `ping` knows only the network's."""
PAYLOAD_SHARE = 0.94
"""Of a link's bits, what is left for data: 1448 of 1538 bytes of each Ethernet frame are TCP's payload."""

RIG = '[[rig]] name = "attic" and devices = [{ card = "RTX 3090" }]'
DEVICES = 'devices = [{ card = "RTX 3090" }]'
DEVICE = '{ card = "RTX 3090" } or { name = "odd", memory_gib = 16, bandwidth_gb_s = 448, tflops = 44 }'
LINK = '[[link]] between = ["attic", "desk"], gbit_s = 2.5, rtt_ms = 0.2'
LINK_TABLE = "{ gbit_s = 1.0, rtt_ms = 0.3 }"


@dataclass(frozen=True)
class RigDevice:
    """One Device of a Rig.

    Args:
        name: of the Worker: the Rig's, a slash, and the Device's.
        torch_device: what torch would call it.
        memory_bytes: for weights, KV and workspace together.
    """

    name: str
    rig: str
    torch_device: str
    memory_bytes: int
    card: KnownCard


@dataclass(frozen=True)
class Rigs:
    """What a rigs file says.

    Args:
        client: the Rig that people talk from; empty: none of them.
        spare: RAM by its Rig that no Device of it offers, as the Device that `--ram` would make of it.
    """

    devices: tuple[RigDevice, ...]
    links: Links
    client: str = ""
    spare: Mapping[str, RigDevice] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The Rigs, in the file's order."""
        return tuple(dict.fromkeys(d.rig for d in self.devices))


def read_rigs(path: Path) -> Rigs:
    """Read a rigs file. Raises UsageError, which names file and line."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise UsageError(f"{path} has more than {MOST_BYTES} bytes, which no rigs file needs: give another --rigs")
        return parse_rigs(raw.decode("utf-8"), str(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): give a rigs file with --rigs") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path} line {line}: this is not UTF-8: save the file as UTF-8") from None


def parse_rigs(text: str, where: str = "rigs.toml") -> Rigs:
    """Read the text of a rigs file. Raises UsageError, which names `where` and the line."""
    document = read_table(text, where)
    document.only(("default_link", "client", "rig", "link"), RIG)
    rigs = document.tables("rig", RIG)
    names = [_name(rig, 'name = "attic"') for rig in rigs]
    for place in repeated(names):
        raise rigs[place].wrong("name", f'there are two rigs named {names[place]}: write another name, such as "{names[place]}-2"')
    devices = tuple(device for rig, name in zip(rigs, names, strict=True) for device in _devices(rig, name))
    if len(devices) > MOST_DEVICES:
        raise document.wrong("rig", f"there are {len(devices)} devices and {MOST_DEVICES} are planned at most: write fewer")
    spare = {name: ram for rig, name in zip(rigs, names, strict=True) for ram in _spare(rig, name, devices)}
    client = document.text("client", f'client = "{names[0]}"') if document.has("client") else ""
    if client and client not in names:
        raise document.wrong("client", f"there is no rig {client}: write one of {', '.join(names)}")
    return Rigs(devices, _links(document, names), client, spare)


def _name(table: Table, example: str) -> str:
    name = table.text("name", example)
    if "/" in name:
        raise table.wrong("name", f"name has a slash in it, which stands between a rig and its device: write {example}")
    return name


def _devices(rig: Table, name: str) -> Iterator[RigDevice]:
    rig.only(("name", "devices", "ram_gib", "cpu"), RIG)
    tables = rig.tables("devices", DEVICES)
    cards = [_card(table) for table in tables]
    torch_names = list(_torch_names(tables, cards))
    labels = [_name(t, 'name = "odd"') if t.has("name") else own for t, own in zip(tables, torch_names, strict=True)]
    for place in repeated(labels):
        raise tables[place].wrong("name", f"rig {name} has two devices named {labels[place]}: write another name")
    for table, card, label, torch_name in zip(tables, cards, labels, torch_names, strict=True):
        usable = card.usable_gib
        if table.has("free_gib"):
            usable = table.number("free_gib", f"free_gib = {usable:g}", 0.1, card.memory_gib if not card.is_cpu else 65536)
        yield RigDevice(f"{name}/{label}", name, torch_name.partition(":")[0] if card.is_cpu else torch_name, _bytes(usable), card)


def _card(table: Table) -> KnownCard:
    if table.has("card"):
        table.only(("card", "name", "free_gib"), DEVICE)
        wanted = table.text("card", 'card = "RTX 3090"')
        card = known_card(wanted)
        if card is None:
            near = " or ".join(f'"{n}"' for n in nearest_names(wanted))
            raise table.wrong("card", f"no card {wanted} is known: write {near}, or give memory_gib, bandwidth_gb_s and tflops")
        return card
    table.only(("name", "memory_gib", "bandwidth_gb_s", "tflops", "free_gib"), DEVICE)
    name = table.text("name", 'name = "odd", or card = "RTX 3090"')
    memory = table.number("memory_gib", "memory_gib = 16", 0.1, 65536)
    bandwidth = table.number("bandwidth_gb_s", "bandwidth_gb_s = 448", 0.1, 1e6)
    tflops = table.number("tflops", "tflops = 44", 0.001, 1e6)
    is_cpu = name.lower().startswith("cpu")
    if memory <= 1 and not is_cpu:
        raise table.wrong("memory_gib", "memory_gib must be above 1, which driver and screen take: write memory_gib = 16")
    fp32 = tflops if is_cpu else tflops / 2
    return KnownCard(name, None, memory, bandwidth, tflops, fp32, "the rigs file", is_cpu)


def _torch_names(tables: tuple[Table, ...], cards: list[KnownCard]) -> Iterator[str]:
    """`cuda:0`, `cuda:1`, ... and `cpu`; several CPU Devices of one Rig are `cpu:0` and `cpu:1`."""
    cpus, gpus = sum(card.is_cpu for card in cards), 0
    seen = 0
    for card in cards:
        if card.is_cpu:
            yield "cpu" if cpus == 1 else f"cpu:{seen}"
            seen += 1
        else:
            yield f"cuda:{gpus}"
            gpus += 1


def _spare(rig: Table, name: str, devices: tuple[RigDevice, ...]) -> Iterator[RigDevice]:
    """The RAM of a Rig, less what its CPU Devices offer."""
    cpu = known_card(rig.text("cpu", 'cpu = "desktop CPU"')) if rig.has("cpu") else known_card("desktop CPU")
    if cpu is None or not cpu.is_cpu:
        raise rig.wrong("cpu", 'cpu must be a kind of CPU: write cpu = "desktop CPU", "server CPU" or "laptop CPU"')
    if not rig.has("ram_gib"):
        return
    ram = _bytes(rig.number("ram_gib", "ram_gib = 32", 0.1, 65536))
    offered = sum(d.memory_bytes for d in devices if d.rig == name and d.card.is_cpu)
    if offered > ram:
        raise rig.wrong("ram_gib", f"the CPU devices of {name} offer more than its ram_gib: write less free_gib or more ram_gib")
    if ram > offered:
        yield RigDevice(f"{name}/cpu/ram", name, "cpu", ram - offered, cpu)


def _links(document: Table, names: list[str]) -> Links:
    links = Links()
    if document.has("default_link"):
        table = document.table("default_link", f"default_link = {LINK_TABLE}")
        table.only(("gbit_s", "rtt_ms"), f"default_link = {LINK_TABLE}")
        links = replace(links, default=_link(table))
    known: dict[tuple[str, str], Link] = {}
    for table in document.tables("link", LINK) if document.has("link") else ():
        table.only(("between", "gbit_s", "rtt_ms"), LINK)
        between = table.texts("between", f'between = ["{names[0]}", "{names[-1]}"]')
        if len(between) != 2:
            raise table.wrong("between", f'between must name two rigs: write between = ["{names[0]}", "{names[-1]}"]')
        for place, name in enumerate(between):
            if name not in names:
                raise table.wrong("between", f"there is no rig {_printable(between[place])}: write one of {', '.join(names)}")
        a, b = between
        if (a, b) in known or (b, a) in known:
            raise table.wrong("between", f"{a} and {b} have a link already: write each pair once")
        known[a, b] = _link(table)
    return replace(links, known=known)


def _link(table: Table) -> Link:
    gbit_s = table.number("gbit_s", "gbit_s = 1.0", 0.0001, 10000)
    rtt_ms = table.number("rtt_ms", "rtt_ms = 0.3", 0, 60000)
    return Link(rtt_ms / 1e3 + GRPC_RTT_S, gbit_s * 1e9 / 8 * PAYLOAD_SHARE)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:64]


def _bytes(gib: float) -> int:
    return int(gib * 2**30)
