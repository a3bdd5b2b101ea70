"""One file of the Hub, downloaded into huggingface_hub's cache in a way that goes on where it was cut.

huggingface_hub itself begins a file anew in each process, which costs gigabytes where a rig was stopped. So the bytes are
fetched here, into a file beside the blob that it becomes, under huggingface_hub's own lock; names and links it makes itself.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from swarm.errors import CorruptWeights, MissingWeights
from swarm.weights.hub_id import HubId
from swarm.weights.tally import Tally

TIMEOUT_S = 30.0
"""Without a byte from the Hub."""
TRIES = 5
"""Cuts in a row, without a byte between them, until it is given up."""
PAUSE_S = 1.0
SHA256 = re.compile(r"[0-9a-f]{64}")
PART = ".swarm-part"
"""Behind the name of a blob of which only the beginning is there."""


class Stopped(MissingWeights):
    """Nobody wants the file any more."""


@dataclass(frozen=True)
class Blob:
    """A file of the Hub, as its cache keeps it. Its methods raise huggingface_hub's errors as they come."""

    hub: HubId
    name: str
    url: str
    etag: str
    size: int
    folder: Path
    """Of the repository, in the cache."""
    cache: Path | None

    @classmethod
    def of(cls, hub: HubId, name: str, cache: Path | None) -> Blob:
        """Asks the Hub what the file is: whoever may not have it learns so here."""
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
        from huggingface_hub.file_download import repo_folder_name

        url = hf_hub_url(hub.repo, name, revision=hub.revision)
        told = get_hf_file_metadata(url)
        if not told.etag or told.size is None:
            raise MissingWeights(f"the Hub at {url} does not say what {name} is: check HF_ENDPOINT")
        folder = Path(cache or constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub.repo, repo_type="model")
        return cls(hub, name, url, told.etag, told.size, folder, cache)

    @property
    def path(self) -> Path:
        return self.folder / "blobs" / self.etag

    @property
    def part(self) -> Path:
        return self.path.with_name(self.etag + PART)

    @property
    def here(self) -> int:
        """Bytes of it that are here."""
        return next((path.stat().st_size for path in (self.path, self.part) if path.exists()), 0)

    def fetch(self, tally: Tally) -> Path:
        """Where it is in the cache, fetched as far as it was not there. One process at a time fetches a file.

        Raises:
            Stopped: `tally` was told so.
            CorruptWeights: what came is not what the Hub says that it is.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

        lock = self.folder.parent / ".locks" / self.folder.name / f"{self.etag}.lock"
        for folder in (lock.parent, self.path.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if not self.path.exists():
                self._fetch_rest(tally)
                self.part.replace(self.path)
            else:
                tally.has(self.size)
        return Path(hf_hub_download(self.hub.repo, self.name, revision=self.hub.revision, cache_dir=self.cache))

    def _fetch_rest(self, tally: Tally) -> None:
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

        with self.part.open("ab") as part:
            if part.tell() > self.size:
                _empty(part)
            tally.has(part.tell())
            tries = 0
            while part.tell() < self.size:
                before, trouble = part.tell(), None
                try:
                    self._append(part, tally)
                except HTTPError as error:
                    if getattr(error, "response", None) is not None:
                        raise  # it was answered, and refused
                    trouble = error
                tries = 0 if part.tell() > before else tries + 1
                if tries == TRIES:
                    raise trouble or MissingWeights(f"the Hub at {self.url} gives no bytes of {self.name}: try again later")
                if trouble:
                    tally.stopped.wait(PAUSE_S)
        self._check(tally)

    def _append(self, part: IO[bytes], tally: Tally) -> None:
        """What is missing behind the end of `part`, as far as it comes."""
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            build_hf_headers,
            hf_raise_for_status,
            http_stream_backoff,
        )

        begin = part.tell()
        headers = build_hf_headers() | {"Range": f"bytes={begin}-", "Accept-Encoding": "identity"}
        with http_stream_backoff("GET", self.url, headers=headers, timeout=TIMEOUT_S) as response:
            hf_raise_for_status(response)
            if begin and response.status_code == 200:  # all of it, from the start
                _empty(part)
                tally.has(-begin)
            for piece in response.iter_bytes():
                if tally.stopped.is_set():
                    raise Stopped(f"{self.name} of {self.hub} was not fetched to its end: nobody wants it any more")
                part.write(piece)
                tally.came(len(piece))
                if part.tell() > self.size:
                    break

    def _check(self, tally: Tally) -> None:
        """The size, and the SHA-256 where the Hub names a file by it (weights, always). Raises CorruptWeights."""
        if self.part.stat().st_size == self.size and (not SHA256.fullmatch(self.etag) or _sha256(self.part) == self.etag):
            return
        self.part.unlink()
        tally.has(-self.size)
        raise CorruptWeights(f"{self.name} of {self.hub} came damaged from the Hub: try again")


def _empty(part: IO[bytes]) -> None:
    part.seek(0)
    part.truncate()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
