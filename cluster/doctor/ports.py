"""Whether the range of ports is free on this machine, and what a firewall may do to it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.doctor.finding import Finding, fine, note, stop, stopped
from cluster.ports import Ports

ABOUT = "ports"
_LISTEN = "0A"
"""State in /proc/net/tcp; source: the kernel's include/net/tcp_states.h."""


@dataclass(frozen=True)
class Busy:
    """A port that somebody else has; `user` is who, where that can be seen."""

    port: int
    why: str
    user: str = ""


@dataclass(frozen=True)
class PortFacts:
    """What is known of a range.

    Args:
        span: such as `7700-7731`.
        trouble: why it cannot be laid out; empty: it can.
        firewalls: those that run here.
        drawn: the ports that the kernel gives to whoever asks for any.
        proven: others were asked to dial, so that firewalls are no guess.
    """

    span: str
    trouble: str = ""
    busy: tuple[Busy, ...] = ()
    firewalls: tuple[str, ...] = ()
    drawn: tuple[int, int] = (0, 0)
    proven: bool = False


def read_ports(span: str, ports: Ports, host: str, proven: bool, root: Path = Path("/")) -> PortFacts:
    """Try each port, and look for firewalls."""
    tried = ports.busy(host)
    users = listeners(root) if tried else {}
    busy = tuple(Busy(port, why, users.get(port, "")) for port, why in tried)
    return PortFacts(span, "", busy, tuple(_firewalls(root)), _drawn(root), proven)


def port_findings(facts: PortFacts) -> Iterator[Finding]:
    if facts.trouble:
        yield stopped(ABOUT, facts.trouble)
        return
    if facts.busy:
        yield _busy(facts.busy)
    else:
        yield fine(ABOUT, f"{facts.span} are free on this machine")
    first, last = (int(end) for end in facts.span.split("-"))
    if facts.drawn[0] <= last and first <= facts.drawn[1]:
        drawn = f"{facts.drawn[0]}-{facts.drawn[1]}"
        yield note(ABOUT, f"programs are given any port of {drawn}, and so some of {facts.span}", "choose --ports outside of those")
    if facts.firewalls and not facts.proven:
        allow = (
            f"sudo ufw allow {first}:{last}/tcp" if "ufw" in facts.firewalls else f"sudo firewall-cmd --add-port={facts.span}/tcp"
        )
        yield note(ABOUT, f"{' and '.join(facts.firewalls)} may keep others out of {facts.span}", f"allow it: {allow}")


def _busy(busy: Sequence[Busy]) -> Finding:
    first = busy[0]
    more = f", nor can {len(busy) - 1} more" if len(busy) > 1 else ""
    who = f" by {first.user}" if first.user else ""
    remedy = "end what uses it (`swarm down`, where that is a swarm of yours), or choose another range with --ports"
    return stop(ABOUT, f"port {first.port} cannot be listened on ({first.why}{who}){more}", remedy)


def listeners(root: Path) -> dict[int, str]:
    """Who listens on which TCP port, as far as this user may see."""
    sockets = dict(_listening(root))
    found: dict[int, str] = {}
    for process in (root / "proc").glob("[0-9]*"):
        try:
            name = (process / "comm").read_text().strip()
            held = set(filter(None, map(_target, (process / "fd").iterdir())))
        except OSError:
            continue  # somebody else's, or it ended
        found |= {sockets[link]: f"{name}, process {process.name}" for link in held if link in sockets}
    return found


def _target(link: Path) -> str:
    """What a link of /proc points to; empty where it was closed meanwhile."""
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _listening(root: Path) -> Iterator[tuple[str, int]]:
    """What /proc/*/fd calls a socket, and the port it listens on. Source: proc(5), /proc/net/tcp."""
    for table in ("tcp", "tcp6"):
        for line in _text(root / "proc/net" / table).splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN:
                yield f"socket:[{fields[9]}]", int(fields[1].rpartition(":")[2], 16)


def _firewalls(root: Path) -> Iterator[str]:
    if "ENABLED=yes" in _text(root / "etc/ufw/ufw.conf"):
        yield "ufw"
    if (root / "run/firewalld").exists() or any("firewalld" in _text(p / "comm") for p in (root / "proc").glob("[0-9]*")):
        yield "firewalld"


def _drawn(root: Path) -> tuple[int, int]:
    first, _, last = _text(root / "proc/sys/net/ipv4/ip_local_port_range").strip().partition("\t")
    return (int(first), int(last)) if first.isdigit() and last.isdigit() else (0, 0)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
