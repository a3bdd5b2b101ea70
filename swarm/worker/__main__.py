"""`python -m swarm.worker`: a Worker process that its rig owns. The swarm's key is the first line of standard input.

With `--spare` alone it imports everything, says `warm` and waits: the next line is JSON with the options that it shall serve
with, and the file that its standard error goes to from then on.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from swarm.wire.credentials import Credentials
from swarm.worker.orphan import go_on_without_owner
from swarm.worker.process import WorkerSettings, run_owned, warm_up


def main() -> int:
    """Read the arguments and the key, and serve until the owner is gone."""
    go_on_without_owner()
    faulthandler.enable()  # a crash in a kernel or a driver says where, on standard error
    if sys.argv[1:] != ["--spare"]:
        return _serve(sys.argv[1:], lambda: sys.stdin.readline().strip())
    key = sys.stdin.readline().strip()
    warm_up()
    print("warm", flush=True)
    if not (line := sys.stdin.readline()):
        return 0  # the owner is gone, or needs it no more
    order = json.loads(line)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    os.dup2(log, sys.stderr.fileno())
    os.close(log)
    return _serve(order["options"], lambda: key)


def _serve(options: Sequence[str], read_key: Callable[[], str]) -> int:
    parser = argparse.ArgumentParser(prog="swarm.worker", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--cache", type=Path, metavar="DIR")
    parser.add_argument("--logs", type=Path, metavar="DIR")
    given = parser.parse_args(options)
    key = read_key()
    where, size = (given.name, given.listen, given.device), given.memory_bytes
    return run_owned(WorkerSettings(*where, given.threads, size, Credentials(key, given.name), given.cache, given.logs))


def _end(code: int) -> NoReturn:
    """At once: taking torch and all other modules down takes a second or three, for which the owner would wait."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _end(main())
