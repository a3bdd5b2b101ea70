"""`swarm plan --rigs`: the examples, known shapes, advice, and one sentence for each mistake in a rigs file."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from commands import is_one_sentence, swarm
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

pytest.importorskip("scipy", reason="planning needs it")

from cluster.dry_run import dry_run
from cluster.hardware.known_cards import KNOWN_CARDS
from cluster.planner import Load
from cluster.rigs_file import parse_rigs, read_rigs
from swarm.cli.plan_model import model_to_plan
from swarm.cli.plan_picture import rigs_picture
from swarm.cli.planned import Planned, on_rigs, show
from swarm.errors import PlacementError, SwarmError
from swarm.plan_check import OBJECTIVES
from swarm.weights.source import NANO_FOLDER

DTYPES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "int8/32": 1.125, "int4/32": 0.625, "int4": 0.5625, "int4/128": 0.53125}
"""And the bytes of a weight in each."""
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
MIXTRAL = ("mixtral-8x7b", "--context", "4096", "--sessions", "2", "--json", "--rigs")


@pytest.mark.parametrize(
    ("name", "dtype", "tokens_per_s"),
    [
        ("two-3090-rigs", "int4", (15, 80)),
        ("3090-3060-laptop", "int4", (10, 70)),
        ("eight-mixed-cards", "auto", (5, 40)),
        ("four-cards-one-rig", "bf16", (8, 40)),
    ],
)
def test_every_example_is_planned_within_its_memory_and_its_bandwidth(name: str, dtype: str, tokens_per_s: tuple[int, int]) -> None:
    ran = swarm("plan", *MIXTRAL, str(EXAMPLES / f"{name}.toml"), "--dtype", dtype)
    assert (ran.code, ran.err) == (0, "")
    document = json.loads(ran.out)
    assert {"ttft_s", "tokens_per_s", "total_tokens_per_s"} <= set(document["predicted"])
    assert all(worker["free_bytes"] >= 0 for worker in document["workers"])
    assert sorted(block for s in document["stages"] if s["route"] == 0 for block in range(*s["blocks"])) == list(range(32))
    predicted = document["predicted"]
    assert tokens_per_s[0] < predicted["tokens_per_s"] < tokens_per_s[1]
    assert predicted["tokens_per_s"] <= 1.001 * predicted["total_tokens_per_s"] < 4 * predicted["tokens_per_s"]
    assert 0.02 < predicted["ttft_s"] < 5
    assert document["bottleneck"]
    assert any("RTX 3090" in each for each in document["advice"])
    used = {w["name"] for w in document["workers"]} | {u["worker"] for u in document["unused"]}
    assert len(used) == (EXAMPLES / f"{name}.toml").read_text().count("{ card =") + ("eight" in name)
    assert all(u["why"] and u["device"] for u in document["unused"])


def test_there_is_an_example_for_each_home_that_is_documented() -> None:
    there = {path.stem for path in EXAMPLES.glob("*.toml")}
    assert there == {"two-3090-rigs", "3090-3060-laptop", "eight-mixed-cards", "four-cards-one-rig"}


@pytest.mark.parametrize("model", ["mixtral-8x7b", "mixtral-8x22b"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_both_mixtrals_are_planned_in_every_dtype_from_their_shape_alone(model: str, dtype: str, tmp_path: Path) -> None:
    a6000s = ", ".join(['{ card = "RTX A6000" }'] * 14)
    planned = made_here(model, dtype, rigs_of(tmp_path, f"devices = [{a6000s}]"), Load(1, 2048))
    assert planned.plan.model.dtype == dtype
    weights = sum(w.weights_bytes for w in planned.plan.workers) / 1e9
    wanted = {"mixtral-8x7b": 46.70e9, "mixtral-8x22b": 140.62e9}[model]
    element = DTYPES[dtype]
    assert weights == pytest.approx(wanted * element * len(planned.plan.routes) / 1e9, rel=0.02)


def test_a_token_reads_what_one_route_holds_of_it_however_many_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    planned = made_here("mixtral-8x7b", "int4", EXAMPLES / "four-cards-one-rig.toml", Load(4, 8192))
    show(planned)
    assert len(planned.plan.routes) == 2 and "a token reads 6.7 GiB of weights" in " ".join(capsys.readouterr().out.split())


def made_here(model: str, dtype: str, path: Path, load: Load = Load(2, 2048)) -> Planned:
    return on_rigs(dry_run(read_rigs(path), model_to_plan(model, dtype), dtype, load), load)


def rigs_of(tmp_path: Path, *rigs: str, links: str = "") -> Path:
    path = tmp_path / "rigs.toml"
    path.write_text(links + "".join(f'[[rig]]\nname = "rig-{i}"\n{rig}\n' for i, rig in enumerate(rigs)))
    return path


def test_auto_on_rigs_is_the_best_that_fits_and_says_why(tmp_path: Path) -> None:
    path = rigs_of(tmp_path, 'devices = [{ card = "RTX 3090" }, { card = "RTX 3090" }]', 'devices = [{ card = "RTX 2080 Ti" }]')
    made = made_here("mixtral-8x7b", "auto", path, Load(1, 2048)).plan
    assert made.model.dtype == "int8" and "rig-1" not in {w.rig for w in made.workers}
    assert any(note.startswith("int8: fp16 needs 8") for note in made.notes), made.notes


def test_cards_without_bf16_alone_are_told_what_their_fp16_lacks(tmp_path: Path) -> None:
    path = rigs_of(tmp_path, 'devices = [{ card = "RTX 2080 Ti" }, { card = "RTX 2080 Ti" }]')
    with pytest.raises(PlacementError, match=r"in fp16 .*needs 8\d\.\d GiB, the devices have 20\.0 GiB"):
        made_here("mixtral-8x7b", "auto", path, Load(1, 2048))


def test_advice_says_that_it_is_for_the_dtype_that_auto_took(tmp_path: Path) -> None:
    path = rigs_of(tmp_path, 'devices = [{ card = "RTX 3090" }]', 'devices = [{ card = "RTX 3090" }]')
    planned = made_here("mixtral-8x7b", "auto", path, Load(4, 8192))
    assert any(line.endswith("sessions") and f", still in {planned.plan.model.dtype}: " in line for line in planned.advice)
    asked = made_here("mixtral-8x7b", planned.plan.model.dtype, path, Load(4, 8192))
    assert not any("still in" in line for line in asked.advice)


def test_a_folder_with_nothing_but_a_config_is_enough(tmp_path: Path) -> None:
    config = NANO_FOLDER / "config.json"
    (tmp_path / "shape").mkdir()
    (tmp_path / "shape" / "config.json").write_bytes(config.read_bytes())
    path = rigs_of(tmp_path, 'devices = [{ card = "RTX 3060 12GB" }]')
    ran = swarm("plan", str(tmp_path / "shape"), "--rigs", str(path), "--json")
    assert (ran.code, json.loads(ran.out)["model"]) == (0, "shape")


def test_ram_that_is_not_offered_is_named_with_the_size_that_makes_it_fit_and_what_it_brings(tmp_path: Path) -> None:
    path = rigs_of(tmp_path, 'ram_gib = 64\ndevices = [{ card = "RTX 3090" }]', 'devices = [{ card = "RTX 3060 12GB" }]')
    ran = swarm("plan", "mixtral-8x7b", "--rigs", str(path), "--dtype", "int8")
    assert (ran.code, ran.out) == (1, "") and is_one_sentence(ran.err)
    found = re.search(
        r"needs 4\d\.\d GiB, the devices have 34.0 GiB; with --ram (\d+)GiB on rig-0 it fits: predicted ([\d.]+) tok/s", ran.err
    )
    assert found and 0 < float(found[2]) < 15
    offered = path.read_text().replace("[{ card", f'[{{ card = "desktop CPU", free_gib = {found[1]} }}, {{ card', 1)
    path.write_text(offered)
    document = json.loads(swarm("plan", "mixtral-8x7b", "--rigs", str(path), "--dtype", "int8", "--json").out)
    assert document["predicted"]["tokens_per_s"] == pytest.approx(float(found[2]), abs=0.06)


def test_one_more_card_is_planned_again_and_not_guessed(tmp_path: Path) -> None:
    path = rigs_of(tmp_path, 'devices = [{ card = "RTX 3090" }, { card = "RTX 3060 12GB" }]')
    advice = made_here("mixtral-8x7b", "int4", path).advice
    found = re.match(r"one more RTX 3090 in rig-0: ([\d.]+) → ([\d.]+) tok/s for one stream", advice[0])
    assert found and float(found[1]) < float(found[2])
    more = rigs_of(tmp_path, 'devices = [{ card = "RTX 3090" }, { card = "RTX 3060 12GB" }, { card = "RTX 3090" }]')
    predicted = made_here("mixtral-8x7b", "int4", more).plan.predicted
    assert predicted and predicted.tokens_per_s == pytest.approx(float(found[2]), abs=0.06)


def test_a_quicker_switch_is_advised_where_links_are_what_is_waited_for(tmp_path: Path) -> None:
    rigs = ('devices = [{ card = "RTX 3090" }]',) * 2
    slow = rigs_of(tmp_path, *rigs, links="default_link = { gbit_s = 0.02, rtt_ms = 0.1 }\n")
    assert any(re.match(r"a 2.5 GbE switch: .* → .*", a) for a in made_here("mixtral-8x7b", "int4", slow, Load(8, 2048)).advice)
    quick = rigs_of(tmp_path, *rigs, links="default_link = { gbit_s = 10, rtt_ms = 0.1 }\n")
    assert not any("switch" in a for a in made_here("mixtral-8x7b", "int4", quick).advice)
    alone = rigs_of(tmp_path, 'devices = [{ card = "RTX A6000" }]')
    assert not any("switch" in a for a in made_here("mixtral-8x7b", "int4", alone).advice)


def test_a_card_that_torch_cannot_run_is_left_out_with_the_build_that_can(tmp_path: Path) -> None:
    path = rigs_of(tmp_path, 'devices = [{ card = "RTX A6000" }, { card = "Tesla P40" }]')
    ran = swarm("plan", "mixtral-8x7b", "--rigs", str(path), "--dtype", "int4", "--json")
    unused = {u["worker"]: u["why"] for u in json.loads(ran.out)["unused"]}
    assert "sm_61" in unused["rig-0/cuda:1"] and "+cu126" in unused["rig-0/cuda:1"]
    alone = swarm("plan", "mixtral-8x7b", "--rigs", str(rigs_of(tmp_path, 'devices = [{ card = "P40" }]')))
    assert alone.code == 1 and is_one_sentence(alone.err) and "+cu126" in alone.err


def test_a_card_without_bf16_makes_auto_fp16_and_is_left_out_of_bf16_and_says_why(tmp_path: Path) -> None:
    path = rigs_of(tmp_path, 'devices = [{ card = "RTX 2080 Ti" }, { card = "RTX A6000" }, { card = "RTX A6000" }]')
    planned = made_here("mixtral-8x7b", "auto", path)
    assert (planned.plan.model.dtype, planned.left) == ("fp16", ())
    for dtype in ("bf16", "int4"):
        planned = made_here("mixtral-8x7b", dtype, path)
        assert planned.plan.model.dtype == dtype
        assert [(u.name, "sm_75 has no bf16" in u.why) for u in planned.unused() if "cuda:0" in u.name] == [("rig-0/cuda:0", True)]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("nano", "--rigs", "none.toml"), 2, "none.toml cannot be read"),
        (("mixtral-8x7b", "--rigs", "RIGS", "--ram", "8GiB"), 2, "--ram is about this machine"),
        (("mixtral-8x7b", "--rigs", "RIGS", "--device", "cpu"), 2, "--device is about this machine"),
        (("mixtral-8x7b", "--rigs", "RIGS", "--out", "x.json"), 2, "no weights"),
        (("nano", "--rigs", "RIGS", "--out", "x.json"), 2, "--out is about this machine"),
        (("mixtral-8x9b", "--rigs", "RIGS"), 2, "mixtral-8x9b"),
        (("mixtral-8x22b", "--rigs", "RIGS", "--dtype", "fp32"), 1, "needs 53"),
        (("nano", "--rigs", "RIGS", "--objective", "speed"), 2, "--objective speed"),
    ],
)
def test_each_mistake_with_a_rigs_file_gets_one_sentence(words: tuple[str, ...], code: int, says: str) -> None:
    given = [str(EXAMPLES / "two-3090-rigs.toml") if word == "RIGS" else word for word in words]
    ran = swarm("plan", *given)
    assert (ran.code, ran.out) == (code, "")
    assert is_one_sentence(ran.err)
    assert says in ran.err


def test_the_picture_of_a_file_names_its_cards_and_says_what_more_would_bring() -> None:
    ran = swarm("plan", "mixtral-8x7b", "--dtype", "int4", "--rigs", str(EXAMPLES / "two-3090-rigs.toml"))
    assert (ran.code, ran.err) == (0, "")
    for words in ("attic", "desk", "cuda:0 RTX 3090", "GiB free", "█", "tok/s for one stream", "bottleneck: ", "one more RTX 3090"):
        assert words in ran.out
    assert "\x1b" not in ran.out


device_lines = st.one_of(
    st.sampled_from([card.name for card in KNOWN_CARDS]).map(lambda name: f'{{ card = "{name}" }}'),
    st.tuples(st.floats(1.1, 200), st.floats(1, 2000), st.floats(0.1, 500)).map(
        lambda n: f'{{ name = "odd", memory_gib = {n[0]}, bandwidth_gb_s = {n[1]}, tflops = {n[2]} }}'
    ),
)
rig_lines = st.lists(device_lines, min_size=1, max_size=2, unique=True).map(lambda d: f"ram_gib = 70\ndevices = [{', '.join(d)}]")


@settings(max_examples=10, deadline=None)
@given(
    st.lists(rig_lines, min_size=1, max_size=3),
    st.sampled_from(["nano", "mixtral-8x7b"]),
    st.sampled_from(["auto", *DTYPES]),
    st.sampled_from(OBJECTIVES),
)
def test_any_home_gets_a_plan_within_its_memory_or_one_sentence(rigs: list[str], model: str, dtype: str, objective: str) -> None:
    text = "".join(f'[[rig]]\nname = "rig-{i}"\n{rig}\n' for i, rig in enumerate(rigs))
    try:
        read = parse_rigs(text)
        load = Load(1, 1024, objective=objective)
        planned = on_rigs(dry_run(read, model_to_plan(model, dtype), dtype, load), load)
    except SwarmError as error:
        assert "\n" not in str(error)
        return
    planned.plan.check()
    assert planned.plan.predicted and planned.plan.predicted.tokens_per_s > 0
    assert {w.name for w in planned.plan.workers} | {u.name for u in planned.unused()} == {d.name for d in read.devices}
    Console(file=io.StringIO(), width=80).print(rigs_picture(planned.plan, planned.labels))
