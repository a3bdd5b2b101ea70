"""The end of a model as a row that is alone meets it, beside its parts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pairs import BF16, CONFIG, FP64, H, drawn, off, weight

from swarm.model.alone_head import HeadAlone
from swarm.model.native.halves import halves
from swarm.model.norm import layer_norm, rms_norm
from swarm.model.stage import Head, Stage

pytestmark = pytest.mark.skipif(halves() is None, reason="this CPU has no AVX2, or no C compiler was there")
VOCAB = 320
NORM = (1 + drawn(H, seed=1) / 8).to(BF16)


@pytest.mark.parametrize("form", ["bf16", "int8", "int4"])
def test_a_row_s_logits_have_the_bits_of_norm_and_product_and_are_near_the_truth(form: str, threads: int) -> None:
    output, exact = weight(form, VOCAB, H)
    stage, config = Stage(CONFIG, {}, head=Head(NORM, output)), replace(CONFIG, norm="layer")
    assert stage._head_alone is not None and Stage(config, {}, head=Head(NORM, output))._head_alone is None
    in_parts = Stage(CONFIG, {}, head=Head(NORM, output))
    in_parts.__dict__["_head_alone"] = None
    for seed in range(4):
        h = drawn(1, H, seed=seed).to(BF16)
        logits = stage.logits(h)
        assert logits.shape == (1, VOCAB) and logits.dtype is BF16 and torch.equal(logits, in_parts.logits(h))
        wide = h.to(FP64)
        truth = wide / (wide.square().mean() + CONFIG.norm_eps).sqrt() * NORM.to(FP64) @ exact.T
        assert off(logits, truth) < 0.02
    assert not stage._head_alone.takes(drawn(2, H).to(BF16)) and not stage._head_alone.takes(drawn(1, H))


def test_other_families_and_forms_are_left_to_others() -> None:
    output = weight("bf16", VOCAB, H)[0]
    assert HeadAlone.of(rms_norm, NORM, 1e-5, output) is not None
    assert HeadAlone.of(layer_norm, NORM, 1e-5, output) is None
    assert HeadAlone.of(rms_norm, NORM.float(), 1e-5, output) is None
    assert HeadAlone.of(rms_norm, NORM, 1e-5, drawn(VOCAB, H)) is None
    assert HeadAlone.of(rms_norm, NORM, 1e-5, drawn(VOCAB + 1, H).to(BF16)) is None
