"""Which files of a repository are one GGUF model of one kind. Standard library only.

A file is called `some-model.Q4_K_M.gguf`, or `Q4_K_M/some-model-Q4_K_M-00001-of-00003.gguf` where it is split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from swarm.errors import MissingWeights

SUFFIX = ".gguf"
SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
KIND = re.compile(r"(?:^|[-._/])((?:UD-)?(?:I?Q\d\w*|B?F16|F32|TQ\d\w*|MXFP4\w*))$", re.IGNORECASE)


def kinds(names: Iterable[str]) -> dict[str, list[str]]:
    """File names by kind, split files of one model together, ascending; a file without a known kind has its own name for one."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        stem = SPLIT.sub("", name.removesuffix(SUFFIX))
        if name.endswith(SUFFIX) and "mmproj" not in stem.lower():
            kind = KIND.search(stem)
            found.setdefault(kind[1] if kind else stem.rpartition("/")[2], []).append(name)
    return found


def files_of(repo: str, names: Iterable[str], kind: str) -> list[str]:
    """The files of a kind, in any case; without a kind those of the only one there is.

    Raises:
        MissingWeights: there is none of that kind, or several without saying which; the message names those there are.
    """
    there = kinds(names)
    chosen = [k for k in there if k.lower() == kind.lower()] if kind else list(there)
    if len(chosen) == 1 and _is_one_model(there[chosen[0]]):
        return there[chosen[0]]
    listed = ", ".join(f"{repo}:{k}" for k in there) or "no GGUF file at all"
    if kind and not chosen:
        raise MissingWeights(f"{repo} on the Hub has no GGUF file of the kind {kind}: it has {listed}")
    if len(chosen) == 1:
        raise MissingWeights(
            f"{repo} on the Hub has several models of the kind {chosen[0]}: download the files of one, and give their path"
        )
    raise MissingWeights(f"{repo} on the Hub has GGUF files of several kinds: give one of {listed}")


def _is_one_model(files: Sequence[str]) -> bool:
    return len({SPLIT.sub("", name.removesuffix(SUFFIX)) for name in files}) == 1
