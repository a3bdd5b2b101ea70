"""Chat templates rendered where they can do no harm: in a process that ends when one takes too much time or memory."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from swarm.client import template_process
from swarm.errors import ModelError

CPU_S = 2.0
"""The most time on a processor for one rendering, in seconds; a chat takes milliseconds."""
Process = subprocess.Popen[bytes]


class Renderer:
    """One such process, started when it is first needed, and again when a template brought it down."""

    def __init__(self, cpu_s: float = CPU_S) -> None:
        self._cpu_s = cpu_s
        self._process: Process | None = None
        self._one_at_a_time = threading.Lock()

    def render(self, template: str, values: Mapping[str, Any]) -> str:
        """The template's text.

        Args:
            values: what the template sees; only what JSON can say.

        Raises:
            ModelError: it is no jinja, refuses these values, fails, or takes too much time or memory.
        """
        with self._one_at_a_time:
            answer = self._ask(json.dumps({"template": template, "values": dict(values)}).encode() + b"\n")
        if "no_jinja" in answer:
            raise ModelError(f"the model's chat template is no jinja ({answer['no_jinja']}): fix it, or use --raw")
        if "refused" in answer:
            raise ModelError(f"the model's chat template refuses this chat ({answer['refused']}): change the chat, or use --raw")
        return str(answer["text"])

    def _ask(self, question: bytes) -> dict[str, Any]:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None, "both are pipes"
        try:
            process.stdin.write(question)
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if line.endswith(b"\n"):
            return dict(json.loads(line))
        process.wait()
        self._process = None
        raise ModelError(
            f"the model's chat template was stopped: it took more than {self._cpu_s:g} s or "
            f"{template_process.MEMORY_BYTES // 2**20} MiB, as no honest one does: give another with --template, or use --raw"
        )

    def _running(self) -> Process:
        if self._process is None or self._process.poll() is not None:
            # A session of its own: Ctrl-C in a chat is not meant for it. -P: nothing beside the program shadows a module.
            command = [sys.executable, "-P", template_process.__file__, str(self._cpu_s)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
            )
            weakref.finalize(self, _end, self._process)
        return self._process


def _end(process: Process) -> None:
    """It ends when its input does."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait()
