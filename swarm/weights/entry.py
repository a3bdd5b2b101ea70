"""What a checkpoint knows of one tensor before it is read: a port with a twin for each format. Standard library only."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from swarm.bits import Form
from swarm.weights.file import WeightFile


class AnyHeader(Protocol):
    """One file's header, as far as the model's checksum needs it."""

    @property
    def file(self) -> WeightFile: ...

    @property
    def raw(self) -> bytes:
        """Its bytes."""
        ...

    def samples(self) -> tuple[bytes, bytes]:
        """See `swarm.weights.header.samples`."""
        ...


class AnyEntry(Protocol):
    """One tensor of a checkpoint; `swarm.weights.read` reads it, whichever format it has."""

    @property
    def path(self) -> Path:
        """The file that has it, for messages."""
        ...

    @property
    def name(self) -> str:
        """What Hugging Face's layout calls it."""
        ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def coding(self) -> str:
        """What its format calls the few bits that it has: `Q4_K`, `gptq`; empty: floats."""
        ...

    @property
    def form(self) -> Form | None:
        """In which its own codes can be kept, code for code; None: floats, or codes that no Form has."""
        ...

    @property
    def auto_form(self) -> Form | None:
        """In which `--dtype auto` keeps it: `form`, or what its few bits are requantized to where they have none; None: floats."""
        ...
