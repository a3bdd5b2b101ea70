"""What the text of a Plan's dtype means, and that each meaning has one text."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from plans import plan_of

from swarm.bits import AUTO, GROUPS, NUMBER_BYTES, ROLES, Bits, Form, canonical, with_forms
from swarm.errors import PlacementError, UsageError

FORMS = [*NUMBER_BYTES, *(f"{kind}/{group}" for kind, groups in GROUPS.items() for group in groups)]


@pytest.mark.parametrize("experts", FORMS)
def test_every_dtype_comes_back_from_its_own_text(experts: str) -> None:
    for others in product(["", "int4", "int8/16", "bf16"], repeat=len(ROLES)):
        text = experts + "".join(f"+{role}={form}" for role, form in zip(ROLES, others, strict=True) if form)
        if experts in ("fp32", "fp16") and "bf16" in others:
            with pytest.raises(UsageError, match="computes in"):
                Bits.of(text)
        else:
            assert Bits.of(str(Bits.of(text))) == Bits.of(text)
            assert canonical(canonical(text)) == canonical(text)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("int4/64", "int4"),
        ("int8/0", "int8"),
        ("int4+head=int8", "int4"),
        ("int4+head=int4", "int4+head=int4"),
        ("int4/32+head=int8+attention=int4/32", "int4/32"),
        ("int4+attention=int8+down=int4/64", "int4+attention=int8"),
    ],
)
def test_one_meaning_has_one_text(written: str, text: str) -> None:
    assert canonical(written) == text


@pytest.mark.parametrize(
    "dtype", ["", "int3", "int4/16", "int4/", "int4/-32", "int8/64", "bf16/32", "int4+gate=int8", "int4+head", "auto+head=int8"]
)
def test_what_is_no_dtype_is_refused_in_one_sentence(dtype: str) -> None:
    with pytest.raises(UsageError) as refused:
        canonical(dtype)
    assert "\n" not in str(refused.value)


def test_what_is_computed_in_is_what_is_not_quantized() -> None:
    numbers = {"bf16": "bf16", "fp32": "fp32", "int4": "bf16", "int4+head=fp16": "fp16", "fp32+down=int4": "fp32"}
    assert {dtype: Bits.of(dtype).numbers for dtype in numbers} == numbers


def test_speed_is_measured_once_for_all_groups_of_4_bits_and_for_each_kernel_of_8() -> None:
    same = ["int4", "int4/32", "int4/128", "int4/32+attention=int8", "int4+head=bf16"]
    assert {Bits.of(dtype).measured for dtype in same} == {"int4"}
    apart = ["int8", "int8/16", "int8/32", "bf16", "fp16", "fp32"]
    assert [Bits.of(dtype).measured for dtype in apart] == apart
    for dtype in (*same, *apart, "int4+head=fp16"):
        measured = Bits.of(dtype).measured
        assert Bits.of(measured).measured == measured
        assert Bits.of(measured).numbers == Bits.of(dtype).numbers


def test_options_say_more_about_a_dtype() -> None:
    assert with_forms("int4", 32, "int8", "bf16") == "int4/32+attention=int8+head=bf16"
    assert with_forms("int4/128") == "int4/128"
    assert with_forms("int4/128+head=int4", 64) == "int4+head=int4"
    assert with_forms("int4+head=int8", head="bf16") == "int4+head=bf16"
    assert with_forms(AUTO) == AUTO
    with pytest.raises(UsageError, match="int8 or --dtype int4"):
        with_forms(AUTO, 32)
    with pytest.raises(UsageError):
        with_forms("bf16", 32)


def test_a_smaller_form_weighs_less() -> None:
    order = ["fp32", "bf16", "int8/16", "int8/32", "int8", "int4/32", "int4", "int4/128"]
    sizes = [Form.of(form).matrix_bytes(4096, 4096) for form in order]
    assert sizes == sorted(sizes, reverse=True)


def test_a_plan_is_refused_whose_dtype_is_none_or_is_not_spelled_as_it_should_be() -> None:
    plan = plan_of([8])
    for dtype, why in (("int3", "no way to keep weights"), ("int4/64", "is to be spelled int4"), ("auto", "no way")):
        with pytest.raises(PlacementError, match=why):
            replace(plan, model=replace(plan.model, dtype=dtype)).check()
    replace(plan, model=replace(plan.model, dtype="int4/32+attention=int8")).check()
