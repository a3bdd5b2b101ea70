"""Shell completion: what Tab offers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = "from swarm.cli.main import main; main()"


def offered(words: str) -> set[str]:
    """What bash is offered behind these words of a command line."""
    seen = os.environ | {"_SWARM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run([sys.executable, "-c", CODE], env=seen, capture_output=True, text=True, timeout=60)
    return set(done.stdout.split())


def test_tab_completes_commands_options_and_actions() -> None:
    assert {"status", "service", "score"} <= offered("swarm s") and "chat" not in offered("swarm s")
    assert offered("swarm logs --si") == {"--since"}
    assert {"install", "status", "remove"} >= offered("swarm service in") >= {"install"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_told_how_to_ask(shell: str) -> None:
    seen = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, "--show-completion", shell], env=seen, capture_output=True, text=True, timeout=60
    )
    assert "_SWARM_COMPLETE" in done.stdout and shell in done.stdout
