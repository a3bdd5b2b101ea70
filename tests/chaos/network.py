"""A network of this process's own, where root may have one: what is cut here is nobody else's, and no port is taken."""

from __future__ import annotations

import ctypes
import os
import subprocess

CLONE_NEWNET = 0x40000000


def own_network() -> bool:
    """Whether this process is in a network namespace of its own from now on. Before its first thread: those stay behind."""
    if os.geteuid():
        return False
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        return False
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    return True
