"""What `--device` and `--ram` accept, and what they say to the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.device_spec import UNITS, DeviceSpec, parse_device, parse_size
from swarm.errors import UsageError


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("cuda:0", DeviceSpec("cuda:0")),
        ("cuda:1=20GiB", DeviceSpec("cuda:1", 20 * 2**30)),
        ("cuda:12=1.5GB", DeviceSpec("cuda:12", 1_500_000_000)),
        ("cpu", DeviceSpec("cpu")),
        ("cpu=4GiB", DeviceSpec("cpu", 4 * 2**30)),
        (" cpu=512MiB ", DeviceSpec("cpu", 512 * 2**20)),
        ("cpu=0.5gib", DeviceSpec("cpu", 2**29)),
        ("cpu=64KiB", DeviceSpec("cpu", 2**16)),
        ("cpu=700MB", DeviceSpec("cpu", 700_000_000)),
    ],
)
def test_a_device_is_read_as_it_was_meant(text: str, spec: DeviceSpec) -> None:
    assert parse_device(text) == spec


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=4GiB",
        "gpu",
        "cuda",
        "cuda:",
        "cuda:-1",
        "cuda:01",
        "cuda:x=1GiB",
        "cpu:0",
        "cpu=",
        "cpu=4",
        "cpu=GiB",
        "cpu=4 giga",
        "cpu=-4GiB",
        "cpu=0GiB",
        "cpu=0.0001KiB",
        "cpu=1e3GiB",
        "cpu=infGiB",
        "cpu=4GiB=2",
        "cpu=4GiB,cuda:0",
        "CPU=1GiB",
        "cpu=٤GiB",
    ],
)
def test_what_makes_no_sense_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="GiB") as refused:
        parse_device(text)
    assert f"--device {text}" in str(refused.value)


@given(st.integers(1, 10**6), st.sampled_from(sorted(UNITS)), st.booleans())
def test_any_whole_size_in_any_unit_is_exact(number: int, unit: str, space: bool) -> None:
    assert parse_size(f"{number}{' ' * space}{unit}", "--ram") == number * UNITS[unit]


@given(st.text(max_size=20))
def test_no_text_ends_in_anything_but_a_size_or_a_usage_error(text: str) -> None:
    try:
        assert parse_device(text).device
    except UsageError as error:
        assert str(error)
