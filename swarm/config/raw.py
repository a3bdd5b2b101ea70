"""A parsed `config.json`, read key by key: what is there must be what it should be. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

from swarm.errors import ModelError


@dataclass(frozen=True)
class Raw:
    """The values of one JSON object. Every method raises ModelError, naming the key.

    Args:
        where: for messages: the file that it is from.
    """

    values: dict[str, Any]
    where: str

    def whole(self, key: str, default: int | None = None, least: int = 1, most: int = 2**31 - 1) -> int:
        """An integer from `least` to `most`; `default` where the key is missing or null."""
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.misstated(f"{key}={value!r:.60}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number of 0 or more."""
        value = self._get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e30 or not isfinite(value):
            raise self.misstated(f"{key}={value!r:.60}")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.misstated(f"{key}={value!r:.60}")
        return value

    def text(self, key: str, default: str) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.misstated(f"{key}={value!r:.60}")
        return value

    def part(self, key: str) -> Raw:
        """An object inside; an empty one where it is missing or null."""
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self.misstated(f"{key}={value!r:.60}")
        return Raw(value, f"{key} of {self.where}")

    def ids(self, key: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Integers of 0 or more: one, or a list of them."""
        value = self._get(key, list(default))
        found = value if isinstance(value, list) else [value]
        if any(not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < 2**31 for i in found):
            raise self.misstated(f"{key}={value!r:.60}")
        return tuple(found)

    def texts(self, key: str) -> tuple[str, ...]:
        """Strings; none where the key is missing or null."""
        value = self._get(key, [])
        if not isinstance(value, list) or any(not isinstance(t, str) for t in value):
            raise self.misstated(f"{key}={value!r:.60}")
        return tuple(value)

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def misstated(self, what: str) -> ModelError:
        return ModelError(f"{self.where} lacks or misstates {what}: fetch it again")

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            if default is None:
                raise self.misstated(key)
            return default
        return value
