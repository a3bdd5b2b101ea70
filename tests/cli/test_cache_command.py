"""`swarm cache` says what the disk keeps, and deletes what it is told to and nothing else."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from commands import is_one_sentence, swarm

from swarm.cli import settings
from swarm.cli.cache_limit import limited_cache
from swarm.errors import UsageError
from swarm.weights.cache.folder import Setting, note

DAY_S = 86400.0


@pytest.fixture
def filled() -> dict[str, Path]:
    """Three models' folders, the second of which was not used for a month."""
    folders = {}
    for model, dtype, days in (("mixtral", "int4", 1), ("mixtral", "int8", 31), ("qwen", "int4/32+attention=int8", 2)):
        setting = Setting(f"{model}00112233", dtype, "cpu AVX512", "swarm 1")
        folder = setting.folder(settings.cache_dir())
        note(folder, setting, model)
        (folder / "core-000.safetensors").write_bytes(bytes(3 << 20))
        os.utime(folder / "about.json", (0, time.time() - days * DAY_S))
        folders[f"{model} {dtype}"] = folder
    return folders


def there(filled: dict[str, Path]) -> list[str]:
    return [name for name, folder in filled.items() if folder.exists()]


def test_what_is_cached_is_listed_with_its_size_and_place(filled: dict[str, Path]) -> None:
    ran = swarm("cache")
    assert ran.code == 0
    assert all(str(folder) in ran.out for folder in filled.values())
    assert ran.out.count("3.0 MiB") == 3
    assert "9.0 MiB in" in ran.out
    document = json.loads(swarm("cache", "--json").out)
    assert document["folder"] == str(settings.cache_dir())
    assert [(m["model"], m["dtype"], m["parts"]) for m in document["models"]] == [
        ("mixtral", "int4", 1),
        ("qwen", "int4/32+attention=int8", 1),
        ("mixtral", "int8", 1),
    ]
    assert all(m["num_bytes"] > 3 << 20 and m["last_used"].endswith("+00:00") for m in document["models"])


def test_an_empty_cache_is_no_error(tmp_path: Path) -> None:
    ran = swarm("cache", "--cache", str(tmp_path / "none"))
    assert (ran.code, ran.out) == (0, f"nothing is cached in {tmp_path}/none/weights\n")
    assert swarm("cache", "prune", "--all").code == 0


@pytest.mark.parametrize(
    ("words", "stays"),
    [
        (["mixtral"], ["qwen int4/32+attention=int8"]),
        (["mistralai/mixtral"], ["qwen int4/32+attention=int8"]),
        (["qwen0011"], ["mixtral int4", "mixtral int8"]),
        (["--older-than", "30d"], ["mixtral int4", "qwen int4/32+attention=int8"]),
        (["mixtral", "--older-than", "12h"], ["qwen int4/32+attention=int8"]),
        (["qwen", "--older-than", "30d"], ["mixtral int4", "mixtral int8", "qwen int4/32+attention=int8"]),
        (["--all"], []),
    ],
)
def test_prune_deletes_what_it_is_told_to(filled: dict[str, Path], words: list[str], stays: list[str]) -> None:
    ran = swarm("cache", "prune", *words, "--json")
    assert ran.code == 0
    assert there(filled) == stays
    assert len(json.loads(ran.out)["models"]) == 3 - len(stays)


@pytest.mark.parametrize(
    "words",
    [["prune"], ["prune", "llama"], ["prune", "mixtral", "--all"], ["prune", "--older-than", "soon"], ["--all"]],
)
def test_what_makes_no_sense_is_one_sentence_and_deletes_nothing(filled: dict[str, Path], words: list[str]) -> None:
    ran = swarm("cache", *words)
    assert ran.code == 2
    assert is_one_sentence(ran.err)
    assert len(there(filled)) == 3


def test_the_folder_comes_from_the_option_then_the_environment_then_the_users_own(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.cache_dir() == own_home / "weights"
    monkeypatch.setenv("SWARM_CACHE", str(tmp_path / "big"))
    assert settings.cache_dir() == tmp_path / "big" / "weights"
    assert settings.cache_dir(tmp_path / "given") == tmp_path / "given" / "weights"
    monkeypatch.delenv("SWARM_CACHE")
    monkeypatch.delenv("SWARM_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert settings.cache_dir() == tmp_path / "xdg" / "swarm" / "weights"


def test_the_limit_is_shown_and_stays_until_it_is_taken_away(tmp_path: Path) -> None:
    assert json.loads(swarm("cache", "--json").out)["limit_bytes"] is None
    assert limited_cache(None, "1.5GiB") == limited_cache(None, None) == settings.cache_dir()
    assert "limited to 1.5 GiB" in swarm("cache").out
    assert json.loads(swarm("cache", "--json").out)["limit_bytes"] == 3 << 29
    limited_cache(None, "none")
    assert json.loads(swarm("cache", "--json").out)["limit_bytes"] is None
    with pytest.raises(UsageError, match="--cache-limit has no size in it"):
        limited_cache(None, "a lot")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be kept in .*: give another --cache"):
        limited_cache(tmp_path / "file", "1GiB")


def test_a_folder_that_takes_no_quantized_weights_is_named(
    tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    limited_cache(tmp_path / "folder", None)
    assert not capsys.readouterr().err
    limited_cache(tmp_path / "file", None)
    said = capsys.readouterr().err
    assert str(tmp_path / "file") in said and "each start makes them anew" in said and "--cache" in said
