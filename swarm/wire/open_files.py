"""How many connections a server process may hold: each is an open file, and the usual limit of 1024 is soon reached."""

from __future__ import annotations

import resource

MOST = 65_536


def allow_many() -> None:
    """Raise this process's limit of open files to the system's, or to `MOST` if that is less. It never falls."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
