"""What the head's screen says of who comes and goes."""

from __future__ import annotations

from typing import Any

from swarm.cli.comings import Comings


def status(*rigs: str, leaving: str = "", **out: str) -> dict[str, Any]:
    workers = [{"name": f"{rig}/cpu", "rig": rig, "out": out.get(rig, "")} for rig in rigs]
    return {"rigs": [{"name": rig, "leaving": rig == leaving} for rig in rigs], "workers": workers}


def test_who_comes_and_who_goes_is_said_once() -> None:
    comings = Comings()
    said = [
        comings.news(each)
        for each in (
            status("attic"),
            status("attic", "desk"),
            status("attic", "desk"),
            status("attic", "desk", leaving="desk", desk="its worker is gone"),
            status("attic"),
            status("attic", "desk"),
        )
    ]
    assert said == [[], ["desk joined"], [], [], ["desk is no longer in the swarm"], ["desk joined"]]


def test_a_device_that_is_planned_without_is_named_with_the_reason_until_it_is_not() -> None:
    comings = Comings()
    said = [
        comings.news(each)
        for each in (
            status("attic", "desk"),
            status("attic", "desk", desk="its worker is gone"),
            status("attic", "desk", desk="its worker is gone"),
            status("attic", "desk", desk="paused by its people"),
            status("attic", "desk"),
        )
    ]
    assert said == [[], ["desk/cpu: its worker is gone"], [], ["desk/cpu: paused by its people"], ["desk/cpu is planned on again"]]


def test_rigs_that_join_again_after_a_coordinator_was_away_are_no_news() -> None:
    comings = Comings()
    said = [comings.news(each) for each in (status("attic", "desk"), {}, {}, status("attic"), status("attic", "desk", "cellar"))]
    assert said == [[], [], [], [], ["cellar joined"]]
