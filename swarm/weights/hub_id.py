"""What names a model on the Hub: `owner/name`, with a commit or branch `@main`, and for GGUF a kind `:Q4_K_M`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

PATTERN = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?(:(?P<kind>[\w.-]+))?")


@dataclass(frozen=True)
class HubId:
    """A repository; empty `revision`: its main branch; empty `kind`: safetensors, else the one GGUF model that it has."""

    repo: str
    revision: str = ""
    kind: str = ""

    @classmethod
    def of(cls, text: str) -> HubId | None:
        """None where no Hub id is like that."""
        found = PATTERN.fullmatch(text)
        return cls(found["repo"], found["revision"] or "", found["kind"] or "") if found else None

    def at(self, revision: str) -> HubId:
        """The same at another revision."""
        return replace(self, revision=revision)

    @property
    def name(self) -> str:
        """What people call it."""
        name = self.repo.partition("/")[2]
        return f"{name}:{self.kind}" if self.kind else name

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{revision}" + (f":{self.kind}" if self.kind else "")
