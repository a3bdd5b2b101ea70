"""Whether the range of ports is free on this machine, and what a firewall may do to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.doctor.finding import Finding, fine, note, stop, stopped
from cluster.doctor.listeners import Listener, listeners
from cluster.ports import Ports

ABOUT = "ports"
UNSEEN = Listener("")


@dataclass(frozen=True)
class Busy:
    """A port that somebody else has; `user` is who, where that can be seen."""

    port: int
    why: str
    user: Listener = UNSEEN


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
    busy = tuple(Busy(port, why, users.get(port, UNSEEN)) for port, why in tried)
    return PortFacts(span, "", busy, tuple(_firewalls(root)), _drawn(root), proven)


def port_findings(facts: PortFacts) -> Iterator[Finding]:
    if facts.trouble:
        yield stopped(ABOUT, facts.trouble)
        return
    ours = [b for b in facts.busy if b.user.swarm]
    if ours:
        yield _ours(ours, facts.span)
    if others := [b for b in facts.busy if not b.user.swarm]:
        yield _busy(others)
    elif not ours:
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


def _ours(busy: Sequence[Busy], span: str) -> Finding:
    swarms = ", ".join(dict.fromkeys(b.user.swarm for b in busy))
    parts = ", ".join(sorted({b.user.who for b in busy}))
    what = f"{len(busy)} of {span} are used by the swarm that runs here ({swarms}): {parts}"
    return note(ABOUT, what, "nothing, where that is the one you mean; another one beside it needs other --ports")


def _busy(busy: Sequence[Busy]) -> Finding:
    first = busy[0]
    more = f", nor can {len(busy) - 1} more" if len(busy) > 1 else ""
    who = f" by {first.user.who}" if first.user.who else ""
    remedy = "end what uses it, or choose another range with --ports"
    return stop(ABOUT, f"port {first.port} cannot be listened on ({first.why}{who}){more}", remedy)


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
