"""What crosses loopback, as a packet capture sees it: root alone may look."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

IPV4, TCP = 0x0800, 6
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
ROOM = 64 << 20
LOAD_HALF, LOAD_BYTE, JUMP_EQUAL, RETURN = 0x28, 0x30, 0x15, 0x06
"""Of the classic BPF, see `linux/bpf_common.h`."""


def can_capture() -> bool:
    """Whether this user may look."""
    try:
        with captured(()):
            return True
    except PermissionError:
        return False


@contextmanager
def captured(addresses: Iterable[str]) -> Iterator[bytearray]:
    """All TCP packets over loopback to and from these host:port while the block runs, headers and all; there once it ended.

    Raises PermissionError where this user may not look.
    """
    ports = sorted({int(address.rpartition(":")[2]) for address in addresses})
    heard = bytearray()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(IPV4)) as tap:
        tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        program = _only(ports)
        held = ctypes.create_string_buffer(program)
        tap.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program) // 8, ctypes.addressof(held)))
        tap.bind(("lo", IPV4))
        tap.setblocking(False)
        yield heard
        try:
            while packet := tap.recv(1 << 17):
                heard += packet
        except BlockingIOError:
            return


def _only(ports: list[int]) -> bytes:
    """A filter that keeps what has one of these ports as its source or its destination; the kernel drops all else."""
    looks = [(LOAD_HALF, 12), (JUMP_EQUAL, IPV4), (LOAD_BYTE, 23), (JUMP_EQUAL, TCP)]
    steps = [*looks, (LOAD_HALF, 34), *[(JUMP_EQUAL, p) for p in ports], (LOAD_HALF, 36), *[(JUMP_EQUAL, p) for p in ports]]
    drop, keep = len(steps), len(steps) + 1
    code = [
        struct.pack("HBBI", what, 0, 0, k)
        if what != JUMP_EQUAL
        else struct.pack("HBBI", what, 0, drop - at - 1, k)
        if at < len(looks)
        else struct.pack("HBBI", what, keep - at - 1, 0, k)
        for at, (what, k) in enumerate(steps)
    ]
    return b"".join([*code, struct.pack("HBBI", RETURN, 0, 0, 0), struct.pack("HBBI", RETURN, 0, 0, 1 << 18)])
