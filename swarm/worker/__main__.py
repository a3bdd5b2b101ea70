"""`python -m swarm.worker`: a Worker process that its rig owns. The swarm's key is the first line of standard input."""

from __future__ import annotations

import argparse
import faulthandler
import sys
from pathlib import Path

from swarm.wire.credentials import Credentials
from swarm.worker.process import WorkerSettings, run_owned


def main() -> int:
    """Read the arguments and the key, and serve until the owner is gone."""
    faulthandler.enable()  # a crash in a kernel or a driver says where, on standard error
    parser = argparse.ArgumentParser(prog="swarm.worker", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--cache", type=Path, metavar="DIR")
    parser.add_argument("--logs", type=Path, metavar="DIR")
    given = parser.parse_args()
    key = sys.stdin.readline().strip()
    where, size = (given.name, given.listen, given.device), given.memory_bytes
    return run_owned(WorkerSettings(*where, given.threads, size, Credentials(key, given.name), given.cache, given.logs))


if __name__ == "__main__":
    sys.exit(main())
