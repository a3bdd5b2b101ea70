"""Whether ports of another machine can be reached: a TCP connection that is closed at once."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence

NO_ANSWER = "no answer"
MOST_PORTS = 64
"""That one question may name."""


async def dial(host: str, ports: Sequence[int], timeout_s: float) -> list[str]:
    """Why each port cannot be reached, in their order; empty where it can. All are dialled at once."""
    return list(await asyncio.gather(*(_dial(host, port, timeout_s) for port in ports)))


async def _dial(host: str, port: int, timeout_s: float) -> str:
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return NO_ANSWER
    except socket.gaierror as error:
        return error.strerror or str(error)
    except OSError as error:
        # asyncio puts its own words into `strerror`.
        return os.strerror(error.errno) if error.errno else str(error)
    writer.close()
    return ""
