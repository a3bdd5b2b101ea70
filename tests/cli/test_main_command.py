"""The frame of the command line: help, versions, sentences, exit codes, and what is imported."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from commands import is_one_sentence, python, swarm
from fake_swarm import plan_for

from swarm import __version__
from swarm.cli.main import COMMANDS

PLAN = ("plan", "nano", "--rigs", str(Path(__file__).parents[2] / "docs" / "examples" / "two-3090-rigs.toml"))
BUILT = [name for name in COMMANDS if importlib.util.find_spec(f"swarm.cli.{name}")]


def test_help_lists_every_command() -> None:
    ran = swarm("--help")
    assert ran.code == 0
    assert all(f"  {name} " in ran.out for name in COMMANDS)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_whose_standard_streams_are_closed_ends_as_any_other(closed: str, tmp_path: Path) -> None:
    import subprocess
    import sys

    command = f'"$0" -m swarm.cli.main status --swarm 127.0.0.1:1 --key k {closed}'
    environment = {"SWARM_HOME": str(tmp_path), "PATH": ""}
    ran = subprocess.run(["/bin/sh", "-c", command, sys.executable], capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert "2>&-" in closed or is_one_sentence(ran.stderr)


@pytest.mark.parametrize("given", [("--key", "s3cret"), ("--key=s3cret",)], ids=len)
def test_a_key_stands_in_no_process_list(given: tuple[str, ...]) -> None:
    code = """
from pathlib import Path
import sys
from swarm.cli.main import main
try:
    main()
finally:
    print(Path("/proc/self/cmdline").read_text().split(chr(0))[3:], file=sys.stderr)
"""
    ran = python(code, "status", "--swarm", "127.0.0.1:1", *given, "--json")
    assert "127.0.0.1:1 does not answer" in ran.err  # the command itself has read it
    shown = ran.err.splitlines()[-1]
    assert "s3cret" not in shown and "'status', '--swarm', '127.0.0.1:1', '--key" in shown and "'--json'" in shown


@pytest.mark.parametrize("name", BUILT)
def test_the_help_of_a_command_has_an_example_of_it(name: str) -> None:
    ran = swarm(name, "--help")
    assert ran.code == 0, ran.err
    assert " ".join(COMMANDS[name].example.split()) in " ".join(ran.out.split())


def test_the_version_is_printed() -> None:
    assert swarm("--version").out == f"swarm {__version__}\n"


@pytest.mark.parametrize("words", [("nonsense",), ("chat", "--nonsense"), ("chat", "--temperature", "warm"), ("worker",), ()])
def test_a_command_line_that_makes_no_sense_ends_with_2(words: tuple[str, ...]) -> None:
    ran = swarm(*words)
    assert ran.code == 2
    assert "Traceback" not in ran.err


def test_a_failure_is_one_sentence_and_1() -> None:
    ran = swarm("status")
    assert ran.code == 1 and ran.out == ""
    assert is_one_sentence(ran.err) and "swarm up" in ran.err


@pytest.mark.parametrize("words", [("--version",), PLAN, (*PLAN, "--json")], ids=len)
def test_an_output_without_room_is_one_sentence(words: tuple[str, ...]) -> None:
    if words[0] == "plan":
        pytest.importorskip("scipy")
    code = """
import os, sys
os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
from swarm.cli.main import main
main()
"""
    ran = python(code, *words)
    assert ran.code == 1 and is_one_sentence(ran.err) and "standard output" in ran.err


def test_an_encoding_that_lacks_a_character_loses_that_character_and_json_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    ran = swarm(*PLAN)
    assert (ran.code, ran.err) == (0, "") and "blocks" in ran.out
    assert json.loads(swarm(*PLAN, "--json").out)["stages"]


@pytest.mark.parametrize(
    "words", [("status",), ("up", "nano", "--device", "cpu=80MiB"), ("join", "10.0.0.1", "--device", "cpu=1GiB")]
)
def test_a_home_that_is_no_folder_is_one_sentence_that_names_the_variable(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if words[0] != "status":
        pytest.importorskip("torch")
    monkeypatch.setenv("SWARM_HOME", "/dev/null/home")
    ran = swarm(*words)
    assert ran.code == 1 and is_one_sentence(ran.err) and "SWARM_HOME" in ran.err and "delete" not in ran.err


@pytest.mark.parametrize("words", [("--help",), ("chat", "--help"), ("score", "--help"), ("status",), ("chat", "hello")])
def test_a_client_command_imports_neither_torch_nor_ray(words: tuple[str, ...]) -> None:
    code = """
import sys
from swarm.cli.main import main
try:
    main()
finally:
    heavy = {"torch", "ray", "numpy", "safetensors", "cluster"} & set(sys.modules)
    print("heavy:", sorted(heavy), file=sys.stderr)
"""
    assert python(code, *words).err.endswith("heavy: []\n")


@pytest.mark.parametrize(
    "words",
    [
        ("up",),
        ("up", "no-such-folder"),
        ("join", "127.0.0.1"),
        ("plan", "nano"),
        ("plan", "nano", "--device", "cuda:0"),
    ],
    ids=" ".join,
)
def test_a_rig_command_on_a_client_says_what_to_install(words: tuple[str, ...]) -> None:
    ran = python("import sys; sys.modules['torch'] = None; from swarm.cli.main import main; main()", *words)
    assert ran.code == 1
    assert is_one_sentence(ran.err) and "needs torch" in ran.err and "pip install '.[rig]'" in ran.err


def test_a_worker_on_a_client_says_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(plan_for({"w0": "127.0.0.1:1", "w1": "127.0.0.1:2"}).to_json())
    code = "import sys; sys.modules['torch'] = None; from swarm.cli.main import main; main()"
    ran = python(code, "worker", "--plan-file", str(path), "--name", "w0")
    assert ran.code == 1 and is_one_sentence(ran.err) and "pip install '.[rig]'" in ran.err


def test_a_rig_without_ray_is_told_so_before_anything_else() -> None:
    pytest.importorskip("torch")
    ran = python("import sys; sys.modules['ray'] = None; from swarm.cli.main import main; main()", "up", "no-such-folder")
    assert ran.code == 1 and is_one_sentence(ran.err) and "needs ray" in ran.err


@pytest.mark.parametrize(
    ("text", "code"), [("", 1), ("{", 1), (json.dumps({"epoch": 1}), 1), (None, 2)], ids=["empty", "cut", "incomplete", "absent"]
)
def test_a_bad_plan_file_is_one_sentence(tmp_path: Path, text: str | None, code: int) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text)
    ran = swarm("worker", "--plan-file", str(path), "--name", "w0")
    assert ran.code == code
    assert is_one_sentence(ran.err) and "swarm plan --out" in ran.err


def test_a_name_that_the_plan_lacks_is_one_sentence_with_those_it_has(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(plan_for({"w0": "127.0.0.1:1", "w1": "127.0.0.1:2"}).to_json())
    ran = swarm("worker", "--plan-file", str(path), "--name", "w7")
    assert ran.code == 1
    assert is_one_sentence(ran.err) and "w0, w1" in ran.err
