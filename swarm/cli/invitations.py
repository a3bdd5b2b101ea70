"""The invitations that this user gave out, kept so that they can be listed and called back: their numbers, not their keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from swarm.cli import settings
from swarm.errors import UsageError
from swarm.wire.authority import Authority, Papers
from swarm.wire.status import UNREADABLE


@dataclass(frozen=True)
class Invitation:
    """One that was given out.

    Args:
        number: of its certificate, hexadecimal.
        until: seconds since 1970.
        authority: the fingerprint of who issued it, which a new key changes.
    """

    name: str
    number: str
    until: float
    authority: str
    revoked: bool = False

    @classmethod
    def of(cls, papers: Papers, name: str, authority: Authority) -> Invitation:
        """What is to be remembered of a guest's papers."""
        shown = x509.load_pem_x509_certificate(papers.certificate)
        return cls(name, f"{shown.serial_number:x}", shown.not_valid_after_utc.timestamp(), authority.fingerprint)

    def state(self, authority: str) -> str:
        """What it is worth: good, expired, revoked, or of a key that was changed since."""
        if self.authority != authority:
            return "of another key"
        if self.revoked:
            return "revoked"
        return "good" if self.until > datetime.now(UTC).timestamp() else "expired"


def _read(raw: Any) -> Invitation:
    revoked = bool(raw.get("revoked", False)) if isinstance(raw, dict) else False
    return Invitation(str(raw["name"]), f"{int(raw['number'], 16):x}", float(raw["until"]), str(raw["authority"]), revoked)


def given_out() -> list[Invitation]:
    """All that this user gave out, the oldest first. Raises UsageError where the file makes no sense."""
    try:
        return [_read(raw) for raw in json.loads(_path().read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except UNREADABLE:
        raise UsageError(
            f"{_path()} cannot be read: delete it; who was invited before can then be shut out by `swarm key rotate` alone"
        ) from None


def remember(invitation: Invitation) -> None:
    """Keep one more."""
    _keep([*given_out(), invitation])


def note_revoked(numbers: Sequence[str]) -> None:
    """Keep that these were called back."""
    _keep([replace(each, revoked=each.revoked or each.number in numbers) for each in given_out()])


def named(name: str, authority: str) -> Iterator[Invitation]:
    """Those for somebody, by name or number, that this key issued and that are not called back yet."""
    return (each for each in given_out() if name in (each.name, each.number) and each.state(authority) in ("good", "expired"))


def _keep(invitations: Sequence[Invitation]) -> None:
    settings.write_private(_path(), json.dumps([asdict(each) for each in invitations], indent=1))


def _path() -> Path:
    return settings.config_dir() / "invitations.json"
