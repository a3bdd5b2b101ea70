"""What comes from the Hub, when, and what is said where it does not: against a Hub on loopback, in processes of their own."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback_hub import COMMIT, REPO, LoopbackHub, hub_of

from swarm.weights.describe import describe
from swarm.weights.header import SAMPLE_BYTES

Write = Callable[..., Path]
DESCRIBE = f"from swarm.weights.describe import describe; print(describe({REPO!r}).model_id)"
RESOLVE = f"from swarm.weights.source import resolve; print(resolve({REPO!r}))"
PROGRAM = """
import sys
from swarm.errors import ModelError
try:
    exec(sys.argv[1])
except ModelError as error:
    print(error)
    sys.exit(1)
"""


@pytest.fixture
def folder(write: Write) -> Path:
    """Weights of several files, each of several samples; and beside them what a Worker has no use for."""
    folder = write("published", hidden_size=256, intermediate_size=512, shard="2MB")
    (folder / "tokenizer.model.v3").write_bytes(b"vocabulary")
    (folder / "consolidated.00.pt").write_bytes(bytes(100_000))
    (folder / "pytorch_model.bin").write_bytes(bytes(100_000))
    (folder / "consolidated.safetensors").write_bytes(bytes(100_000))
    (folder / "original").mkdir()
    shutil.copy(folder / "config.json", folder / "original" / "config.json")
    return folder


@pytest.fixture
def hub(folder: Path) -> Iterator[LoopbackHub]:
    with hub_of(folder) as hub:
        yield hub


def start(program: str, endpoint: str, home: Path, **env: str) -> subprocess.Popen[str]:
    ours = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    ours |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", PROGRAM, program]
    return subprocess.Popen(command, env=ours | env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ask(program: str, endpoint: str, home: Path, **env: str) -> str:
    """What a process prints that succeeds."""
    process = start(program, endpoint, home, **env)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    return out.strip()


def refusal(program: str, endpoint: str, home: Path, **env: str) -> str:
    """The one sentence of a process that fails."""
    process = start(program, endpoint, home, **env)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, out + err
    assert "Traceback" not in err
    assert out.count("\n") == 1
    return out.strip()


def weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def looked_at(folder: Path) -> int:
    """Bytes of headers and samples of all weight files."""
    total = 0
    for path in weights(folder):
        with path.open("rb") as file:
            total += 8 + struct.unpack("<Q", file.read(8))[0] + 2 * SAMPLE_BYTES
    return total


def test_describing_a_model_of_the_hub_fetches_headers_and_samples_and_says_what_a_folder_says(
    hub: LoopbackHub, folder: Path, tmp_path: Path
) -> None:
    assert len(weights(folder)) > 2
    assert ask(DESCRIBE, hub.url, tmp_path / "home") == describe(str(folder)).model_id
    assert 0 < hub.of_weights() <= looked_at(folder) < sum(p.stat().st_size for p in weights(folder))
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_a_model_in_one_small_file_is_described_alike(write: Write, tmp_path: Path) -> None:
    folder = write("small")
    with hub_of(folder) as hub:
        assert ask(DESCRIBE, hub.url, tmp_path / "home") == describe(str(folder)).model_id
        assert hub.of_weights() <= (folder / "model.safetensors").stat().st_size


def test_a_change_at_either_end_of_the_data_is_another_model(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    before = ask(DESCRIBE, hub.url, tmp_path / "home")
    path = weights(folder)[1]
    data = bytearray(path.read_bytes())
    data[-SAMPLE_BYTES] ^= 1
    path.write_bytes(data)
    assert ask(DESCRIBE, hub.url, tmp_path / "other") == describe(str(folder)).model_id != before


def test_loading_fetches_what_the_index_names_once_and_then_nothing(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    found = Path(ask(RESOLVE, hub.url, home))
    assert found.name == COMMIT
    names = {p.name for p in weights(folder)}
    assert {p.name for p in found.glob("*.safetensors")} == names
    assert (found / "tokenizer.model.v3").read_bytes() == b"vocabulary"
    assert hub.of_weights() == sum(p.stat().st_size for p in weights(folder))
    assert not {n for n in hub.sent if n.startswith("original/") or n.endswith((".pt", ".bin"))}
    hub.calls.clear()
    assert ask(RESOLVE, hub.url, home) == str(found)
    assert ask(DESCRIBE, hub.url, home) == describe(str(folder)).model_id
    assert not hub.calls
    offline = {"HF_HUB_OFFLINE": "1"}
    assert ask(DESCRIBE, hub.url, home, **offline) == describe(str(folder)).model_id


def test_what_a_broken_download_left_out_is_fetched_and_no_more(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    found = Path(ask(RESOLVE, hub.url, home))
    lost = weights(found)[1]
    lost.resolve().unlink()
    lost.unlink()
    hub.sent.clear()
    assert ask(RESOLVE, hub.url, home) == str(found)
    assert set(hub.sent) == {lost.name}


def test_two_workers_of_one_rig_fetch_each_file_once(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    both = [start(RESOLVE, hub.url, tmp_path / "home") for _ in range(2)]
    answers = [process.communicate(timeout=60) for process in both]
    assert [p.returncode for p in both] == [0, 0], answers
    assert hub.of_weights() == sum(p.stat().st_size for p in weights(folder))


def test_what_a_client_needs_comes_without_weights(hub: LoopbackHub, tmp_path: Path) -> None:
    program = f"from swarm.weights.source import small_files; print(*sorted(p.name for p in small_files({REPO!r}).iterdir()))"
    names = ask(program, hub.url, tmp_path / "home").split()
    assert {"config.json", "tokenizer.model.v3"} <= set(names)
    assert hub.of_weights() == 0


@pytest.mark.parametrize("program", [DESCRIBE, RESOLVE])
def test_a_private_model_needs_the_token_and_the_refusal_says_how(hub: LoopbackHub, tmp_path: Path, program: str) -> None:
    hub.token = "hf_right"
    said = refusal(program, hub.url, tmp_path / "home")
    assert REPO in said
    assert "hf auth login` or set HF_TOKEN" in said
    assert refusal(program, hub.url, tmp_path / "home", HF_TOKEN="hf_wrong") == said
    assert ask(program, hub.url, tmp_path / "home", HF_TOKEN="hf_right")


def test_a_gated_model_says_where_its_terms_are(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.gated = True
    said = refusal(DESCRIBE, hub.url, tmp_path / "home", HF_TOKEN="hf_right")
    assert f"accept its terms at {hub.url}/{REPO}" in said
    assert "HF_TOKEN" in said


def test_a_gate_that_closes_after_the_small_files_came_says_so_too(hub: LoopbackHub, tmp_path: Path) -> None:
    ask(DESCRIBE, hub.url, tmp_path / "home")
    hub.gated = True
    assert f"accept its terms at {hub.url}/{REPO}" in refusal(RESOLVE, hub.url, tmp_path / "home")


def test_a_model_that_is_not_on_the_hub_is_said_to_be_missing(hub: LoopbackHub, tmp_path: Path) -> None:
    said = refusal(DESCRIBE.replace(REPO, "owner/nothing"), hub.url, tmp_path / "home")
    assert "no folder owner/nothing" in said
    assert "the Hub has no model of that name" in said


def test_no_network_and_offline_mode_are_told_apart(hub: LoopbackHub, tmp_path: Path) -> None:
    dead = "http://127.0.0.1:9"
    for program in (DESCRIBE, RESOLVE):
        assert f"the Hub at {dead} cannot be reached" in refusal(program, dead, tmp_path / "home")
        assert "HF_HUB_OFFLINE is set" in refusal(program, hub.url, tmp_path / "home", HF_HUB_OFFLINE="1")
    assert not hub.calls


def test_a_cache_with_small_files_only_is_not_enough_without_a_network(hub: LoopbackHub, tmp_path: Path) -> None:
    ask(DESCRIBE, hub.url, tmp_path / "home")
    assert "HF_HUB_OFFLINE is set" in refusal(RESOLVE, hub.url, tmp_path / "home", HF_HUB_OFFLINE="1")
    assert "cannot be reached" in refusal(RESOLVE, "http://127.0.0.1:9", tmp_path / "home")


@pytest.mark.parametrize("program", [DESCRIBE, RESOLVE])
def test_a_model_without_safetensors_or_with_a_file_missing_is_refused(
    hub: LoopbackHub, folder: Path, tmp_path: Path, program: str
) -> None:
    lost = weights(folder)[1]
    lost.unlink()
    assert lost.name in refusal(program, hub.url, tmp_path / "home")
    (folder / "model.safetensors.index.json").unlink()
    assert "model.safetensors" in refusal(program, hub.url, tmp_path / "other")


def test_a_hub_that_serves_no_parts_is_said_so_and_not_read_whole(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.ranges = False
    assert "cannot be read in parts" in refusal(DESCRIBE, hub.url, tmp_path / "home")


def test_damage_is_found_from_afar_and_named(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    path = weights(folder)[0]
    path.write_bytes(path.read_bytes()[:-1])
    said = refusal(DESCRIBE, hub.url, tmp_path / "home")
    assert f"{REPO}/{path.name} is damaged" in said


FETCH = """
import sys
from pathlib import Path
from swarm.weights import hub
from swarm.weights.hub_id import HubId
from swarm.weights.tally import Tally
tally = Tally()
hub.whole(HubId.of("owner/some-mixtral"), None, tally)
print(*tally.now[:2], tally._came)
"""


def test_a_download_that_was_killed_goes_on_where_it_was_in_another_process(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    hub.stop_at = 100_000
    process = start(FETCH, hub.url, tmp_path / "home")
    deadline = time.monotonic() + 60
    while sum(path.stat().st_size for path in (tmp_path / "home").rglob("*.swarm-part")) < 4 * hub.stop_at:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)  # between two looks
    process.kill()
    process.communicate()
    hub.stop_at = 0
    total = sum(p.stat().st_size for p in weights(folder))
    done, of, came = map(int, ask(FETCH, hub.url, tmp_path / "home").split())
    assert (done, of) == (total, total)
    assert came <= total - 4 * 100_000
    assert not list((tmp_path / "home").rglob("*.swarm-part"))


def test_a_download_that_is_cut_goes_on_by_itself(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    hub.cuts = 3
    total = sum(p.stat().st_size for p in weights(folder))
    assert ask(FETCH, hub.url, tmp_path / "home") == f"{total} {total} {total}"
    assert hub.cuts == 0


def test_a_file_that_comes_damaged_is_not_kept(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.damage = True
    assert "came damaged from the Hub" in refusal(RESOLVE, hub.url, tmp_path / "home")
    hub.damage = False
    assert ask(RESOLVE, hub.url, tmp_path / "home")


def test_a_commit_can_be_named_and_one_that_is_not_there_is_said(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    program = f"from swarm.weights.describe import describe; m = describe({REPO + '@' + COMMIT!r}); print(m.name, m.source)"
    assert ask(program, hub.url, tmp_path / "home") == f"some-mixtral {REPO}@{COMMIT}"
    wrong = program.replace(COMMIT, "another")
    assert "no such revision" in refusal(wrong, hub.url, tmp_path / "home")


def test_a_gguf_model_of_the_hub_is_picked_by_its_kind_in_any_case(tmp_path: Path) -> None:
    published = tmp_path / "published"
    published.mkdir()
    for kind in ("Q4_K_M", "Q8_0"):
        (published / f"some-mixtral.{kind}.gguf").write_bytes(kind.encode())
    program = "from swarm.weights.source import resolve; print(resolve('owner/some-mixtral:q8_0').read_text())"
    with hub_of(published) as hub:
        assert ask(program, hub.url, tmp_path / "home") == "Q8_0"
        assert set(hub.sent) == {"some-mixtral.Q8_0.gguf"}
        assert ask(program, hub.url, tmp_path / "home", HF_HUB_OFFLINE="1") == "Q8_0"
        said = refusal(program.replace("q8_0", "Q2_K"), hub.url, tmp_path / "home")
        assert f"{REPO}:Q4_K_M, {REPO}:Q8_0" in said
        assert "several kinds" in refusal(program.replace(":q8_0", ""), hub.url, tmp_path / "other")


def test_without_room_nothing_is_fetched_and_the_error_names_folder_needed_and_free(
    hub: LoopbackHub, folder: Path, tmp_path: Path
) -> None:
    program = "import swarm.weights.hub as hub; hub.free_bytes = lambda folder: 1_000_000; " + RESOLVE
    said = refusal(program, hub.url, tmp_path / "home")
    needed = sum(p.stat().st_size for p in weights(folder)) / 2**20
    assert f"{tmp_path / 'home' / 'hub'} needs {needed:.1f} MiB" in said and "has 1.0 MiB free" in said and "--cache" in said
    assert hub.of_weights() == 0


def test_a_rig_with_some_files_of_a_model_knows_it_and_loads_those_offline(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    home, first = tmp_path / "home", weights(folder)[0].name
    some = f"""
from swarm.weights.source import inspect
checkpoint = inspect("{REPO}")
for header in checkpoint.headers:
    if header.file.name == "{first}":
        buffer = memoryview(bytearray(100))
        header.file.read_into(header.data_offset, buffer)
        print(checkpoint.model_id(), bytes(buffer).hex())
"""
    told = ask(some, hub.url, home)
    assert {path.name for path in home.rglob("snapshots/*/*.safetensors")} == {first}
    hub.calls.clear()
    assert ask(some, hub.url, home, HF_HUB_OFFLINE="1") == told
    assert not hub.calls
