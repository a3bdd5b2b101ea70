"""Leaving out of a text what is nobody else's business: keys go, names and addresses become others, the same ones everywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address

_V4 = r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"
_V6 = r"(?<![\w:])(?:[0-9a-fA-F]{1,4}:){1,7}(?:(?::[0-9a-fA-F]{1,4}){1,6}|[0-9a-fA-F]{1,4}|:)(?:%\w+)?(?![\w:])"
_ADDRESS = re.compile(f"{_V4}|{_V6}")
_HERE = ("127.0.0.1", "0.0.0.0", "127.0.0.2", "::1")
"""Addresses that say nothing of anybody."""
_SECRETS = re.compile(
    r"\bhf_\w{8,}|\bswarm-invitation-[\w.+/=-]+|-----BEGIN [^-]*-----.*?-----END [^-]*-----|\bBearer \S+", re.DOTALL
)
_HOME = re.compile(r"/(?:home|Users)/[^/\s\"':,]+|/root(?=[/\s\"':,]|$)")
GONE = "(left out)"


@dataclass
class Redaction:
    """Replaces as it goes; what was met once is called the same from then on.

    Args:
        secrets: texts that are left out, wherever they stand.
        rigs: names of rigs, which become rig-1, rig-2 in this order.
        private: other names by the word that they become: `{"alice": "user"}`.
        homes: folders that become `~`, beside those that look like somebody's.
    """

    secrets: Iterable[str] = ()
    rigs: Iterable[str] = ()
    private: dict[str, str] = field(default_factory=dict)
    homes: Iterable[str] = ()
    _addresses: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = {name: f"rig-{number}" for number, name in enumerate(dict.fromkeys(n for n in self.rigs if n), 1)}
        self._names = names | {name: word for name, word in self.private.items() if name and name not in names}
        longest = sorted(self._names, key=len, reverse=True)
        # A name is one also before ".lan" or "/cuda:0"; within a longer word it is not.
        self._name = re.compile("|".join(rf"(?<![\w-]){re.escape(name)}(?![\w-])" for name in longest) or r"(?!)")
        own = sorted((re.escape(home.rstrip("/")) for home in set(self.homes) if home.rstrip("/")), key=len, reverse=True)
        self._home = re.compile("|".join([*(rf"{home}(?![\w.-])" for home in own), _HOME.pattern]))
        hidden = sorted((s for s in set(self.secrets) if s), key=len, reverse=True)
        self._secret = re.compile("|".join(map(re.escape, hidden)) or r"(?!)")

    def of(self, text: str) -> str:
        """The text without them."""
        text = _SECRETS.sub(GONE, self._secret.sub(GONE, text))
        text = self._name.sub(lambda found: self._names[found[0]], self._home.sub("~", text))
        return _ADDRESS.sub(lambda found: self._address(found[0]), text)

    def _address(self, found: str) -> str:
        try:
            ip_address(found.partition("%")[0])
        except ValueError:  # a time of day, say
            return found
        if found in _HERE:
            return found
        return self._addresses.setdefault(found, f"address-{len(self._addresses) + 1}")
