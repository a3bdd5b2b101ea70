"""A weight file on the Hub that is read in pieces, by HTTP ranges (RFC 9110, section 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from swarm.errors import CorruptWeights, MissingWeights
from swarm.weights.header import SAMPLE_BYTES
from swarm.weights.hub_id import HubId

TIMEOUT_S = 30.0
"""Without a byte from the Hub."""
RETRIES = 3
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass
class RemoteFile:
    """The twin of `LocalFile`: it keeps every piece that it has fetched, and fetches none twice.

    All methods raise MissingWeights where the answer is not what was asked for, and huggingface_hub's errors as they come.
    """

    path: Path
    """Model and name, for messages."""
    url: str
    _pieces: dict[int, bytes] = field(default_factory=dict)
    """By offset."""
    _size: int = -1

    @classmethod
    def of(cls, hub: HubId, name: str) -> RemoteFile:
        """A file of a commit."""
        from huggingface_hub import hf_hub_url

        return cls(Path(hub.repo) / name, hf_hub_url(hub.repo, name, revision=hub.revision))

    def size(self) -> int:
        if self._size < 0:
            # The header begins here and the first sample follows it, so none of these bytes is in vain.
            self._pieces[0] = self._fetch(0, SAMPLE_BYTES)
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        end = min(offset + size, self.size())
        found = bytearray()
        while offset < end:
            piece = self._at(offset, end)
            found += piece
            offset += len(piece)
        return bytes(found)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        data = self.read(offset, len(buffer))
        if len(data) != len(buffer):
            raise CorruptWeights(f"{self.path} ends inside the tensor at byte {offset + len(data)}: fetch it again")
        buffer[:] = data

    def _at(self, offset: int, end: int) -> bytes:
        """What is known from `offset` on, up to `end`; at least one byte."""
        for begin, piece in self._pieces.items():
            if begin <= offset < begin + len(piece):
                return piece[offset - begin : end - begin]
        until = min((begin for begin in self._pieces if offset < begin < end), default=end)
        self._pieces[offset] = self._fetch(offset, until - offset)
        return self._pieces[offset]

    def _fetch(self, offset: int, size: int) -> bytes:
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            build_hf_headers,
            hf_raise_for_status,
            http_stream_backoff,
        )

        asked = {"Range": f"bytes={offset}-{offset + size - 1}", "Accept-Encoding": "identity"}
        headers = build_hf_headers() | asked
        with http_stream_backoff("GET", self.url, headers=headers, timeout=TIMEOUT_S, max_retries=RETRIES) as response:
            hf_raise_for_status(response)
            told = RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if response.status_code != 206 or told is None:
                raise MissingWeights(f"{self.path} cannot be read in parts from the Hub at {self.url}: check HF_ENDPOINT")
            begin, last, total = (int(number) for number in told.groups())
            if begin != offset or last != min(offset + size, total) - 1 or self._size not in (-1, total):
                raise MissingWeights(f"{self.path}: the Hub answered other bytes than were asked for: try again")
            data = bytearray()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > size:
                    break
        if len(data) != last - begin + 1:
            raise MissingWeights(f"{self.path}: the Hub broke off in the middle of an answer: try again")
        self._size = total
        return bytes(data)
