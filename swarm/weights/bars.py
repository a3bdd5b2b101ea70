"""huggingface_hub's progress bars, off: what takes long is counted elsewhere. Import it where huggingface_hub is."""

from __future__ import annotations

from typing import Any

from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]


class NoBars(tqdm):
    """For what takes a moment."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
