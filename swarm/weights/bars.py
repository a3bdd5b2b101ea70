"""huggingface_hub's progress bars, off where nobody looks. Import it where huggingface_hub is."""

from __future__ import annotations

from typing import Any

from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]


class Bars(tqdm):
    """In a terminal only: huggingface_hub itself leaves that to tqdm for some of its bars, and draws the others anyway."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"disable": None, **options})  # type: ignore[no-untyped-call]


class NoBars(tqdm):
    """For what takes a moment."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
