"""A person at a pseudo-terminal: types, waits for what appears, presses Ctrl-C."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import TracebackType

LIMIT_S = 90.0
CTRL_C, CTRL_D = "\x03", "\x04"


class Typist:
    """Python code in a process whose three streams are one terminal, `dumb` unless it must be one that can go back."""

    def __init__(self, code: str, *words: str, terminal: str = "dumb") -> None:
        self._fd, inner = os.openpty()
        termios.tcsetwinsize(inner, (40, 160))
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TERM": terminal}
        command = [sys.executable, "-c", code, *words]
        self._process = subprocess.Popen(command, preexec_fn=lambda: os.login_tty(inner), env=environment)
        os.close(inner)
        self._seen = ""

    def __enter__(self) -> Typist:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        if self._fd >= 0:
            os.close(self._fd)

    def hang_up(self) -> None:
        """Close the terminal, as a window or a lost connection does."""
        os.close(self._fd)
        self._fd = -1

    def wait(self) -> None:
        """Until the process has ended."""
        self._process.wait(LIMIT_S)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._fd, text.encode())

    def press_until(self, key: str, text: str) -> None:
        """Press a key, and again every two seconds, until the text appears.

        For Ctrl-C in a line: readline does not hear one that comes while it still shows the letter before.
        """
        deadline = time.monotonic() + LIMIT_S
        while text not in self._seen:
            assert time.monotonic() < deadline, f"{text!r} did not appear"
            self.type(key)
            again = time.monotonic() + 2.0
            while text not in self._seen and self._read(again):
                pass
        self.see(text)

    def see(self, text: str) -> str:
        """Wait until the text appears behind what was seen before; all that came up to its end."""
        deadline = time.monotonic() + LIMIT_S
        while text not in self._seen:
            assert self._read(deadline), f"{text!r} did not appear after {self._seen!r}"
        end = self._seen.index(text) + len(text)
        shown, self._seen = self._seen[:end], self._seen[end:]
        return shown

    def leave(self) -> tuple[int, str]:
        """Wait for the end: exit code, and what appeared before it."""
        deadline = time.monotonic() + LIMIT_S
        while self._read(deadline):
            pass
        return self._process.wait(LIMIT_S), self._seen

    def _read(self, deadline: float) -> bool:
        """Take what comes next; False at the end of the process or of the patience."""
        if not select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # Linux answers EIO when the other end is closed
            return False
        self._seen += data.decode().replace("\r\n", "\n")
        return bool(data)
