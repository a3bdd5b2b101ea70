"""A card's kernels beside their twin in plain torch: run by Triton's interpreter on a CPU, compiled where there is a card."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from swarm.bits import Form
from swarm.model.experts import ExpertWeights
from swarm.model.kernels.bank import Bank
from swarm.model.kernels.card_matrix import CardMatrix
from swarm.model.kernels.chosen import ChosenExperts
from swarm.model.kernels.lanes import Lanes
from swarm.model.kernels.port import Plain
from swarm.model.kernels.proof import differences, drawn, far
from swarm.model.quant import on_card
from swarm.model.quant.int4 import Int4Matrix
from swarm.model.quant.int8 import Int8Matrix
from swarm.model.quant.matrix import matrix_of
from swarm.weights.cache.tree import put_together, take_apart
from swarm.weights.quantize import quantize

pytest.importorskip("triton")
from swarm.model.kernels.on_triton import OnTriton

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # of Triton's interpreter

CPU = torch.device("cpu")
DEVICE = CPU if os.environ.get("TRITON_INTERPRET") == "1" else torch.device("cuda:0")
KERNELS = OnTriton(interpreted=DEVICE.type == "cpu")


def test_kernels_answer_what_their_twin_does() -> None:
    assert differences(KERNELS, DEVICE, torch.float16) == ""  # bf16 only on a card: the interpreter cuts it off instead of rounding


def test_a_kernel_that_answers_wrongly_is_found_out() -> None:
    class Wrong(Plain):
        def grouped(self, *given, **named):
            return super().grouped(*given, **named) * 1.01

    assert "wrong" in differences(Wrong(), CPU, torch.float32)


def test_a_row_has_the_same_bits_alone_and_among_others() -> None:
    draw = torch.Generator().manual_seed(1)
    bank = Bank(tuple(drawn(16, 64, torch.float32, DEVICE, draw)["4 bits"]))
    x = torch.randn(18, 64, generator=draw).to(DEVICE)
    chosen = torch.randint(0, 3, (18, 1), generator=draw).to(DEVICE)
    together = KERNELS.grouped(x, chosen, bank)
    for row in (0, 17):
        assert torch.equal(KERNELS.grouped(x[row : row + 1].clone(), chosen[row : row + 1].clone(), bank)[0], together[row])


def test_one_expert_asked_from_afar_has_the_bits_that_it_has_among_the_chosen() -> None:
    draw = torch.Generator().manual_seed(2)
    w13, w2 = drawn(48, 32, torch.float32, DEVICE, draw)["numbers"], drawn(32, 24, torch.float32, DEVICE, draw)["numbers"]
    experts = ChosenExperts(KERNELS, Bank(tuple(w13)), Bank(tuple(w2)))
    x = torch.randn(3, 32, generator=draw).to(DEVICE)
    chosen = torch.tensor([[0, 2], [1, 2], [0, 1]], device=DEVICE)
    here = experts.forward(x, chosen)
    assert torch.equal(experts.one(x[:2], 2), here[:2, 1])


@pytest.mark.parametrize("window", [0, 5])
def test_sinks_take_their_share_in_tiles_and_in_splits(window: int) -> None:
    draw = torch.Generator().manual_seed(3)
    keys, values = torch.randn(2, 80, 8, 1, 24, generator=draw).to(DEVICE)
    sinks = torch.randn(3, generator=draw).to(DEVICE)
    for first, end in ((0, 5), (270, 271)):
        lanes = Lanes.of([(first, end)], [list(range(79, 0, -1))], 8, 3, torch.arange(first, end, device=DEVICE))
        q = torch.randn(end - first, 3, 24, generator=draw).to(DEVICE)
        answer, truth = (k.attend(q, keys, values, lanes, window, sinks) for k in (KERNELS, Plain()))
        assert far(answer, truth) < 1e-5


@pytest.mark.parametrize("text", ["int4", "int4/32", "int4/128", "int8", "int8/16", "int8/32"])
def test_what_a_cpu_packed_is_on_a_card_code_for_code(text: str) -> None:
    w = torch.randn(33, 200, generator=torch.Generator().manual_seed(0))
    matrix = matrix_of([quantize(w, Form.of(text)).codes], torch.bfloat16)
    if isinstance(matrix, Int4Matrix):
        card = on_card.int4(matrix.packed, matrix.scales, matrix.rows, matrix.columns, CPU)
    elif isinstance(matrix, Int8Matrix):
        card = on_card.int8(matrix.q, matrix.scale, matrix.columns, CPU)
    else:
        card = on_card.int8_groups(matrix.packed, matrix.scales, (matrix.rows, matrix.columns, matrix.group), CPU)
    assert card.shape == matrix.shape
    assert float((card.dense().float() - matrix.dense().float()).abs().max()) <= (0.016 if "/" in text and "int8" in text else 0)
    for rows in (3, 40):
        x = torch.randn(rows, 200).bfloat16()
        assert far(card.product(x), x.float() @ matrix.dense().float().T) < 1e-2


@pytest.mark.skipif(sys.platform != "linux", reason="the compiler for cards comes with Triton for Linux")
def test_every_kernel_compiles_for_a_kind_of_card_and_fits_it(tmp_path) -> None:
    command = [sys.executable, "-m", "benchmarks.cuda_kernels", "86", "--dtypes", "bf16", "--forms", "4 bits"]
    env = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    said = subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=150).stdout
    kernels = [json.loads(line) for line in said.splitlines()]
    assert {k["kernel"] for k in kernels} == {"grouped", "unpack", "attend", "combine"}
    assert all(k["stack"] == 0 for k in kernels), "registers are spilled"
    assert all(k["mma"] for k in kernels if k["kernel"] in ("grouped", "attend")), "tensor cores are idle"


def test_rows_of_a_session_are_laid_in_tiles_that_never_mix_sessions() -> None:
    spans = [(3, 40), (9, 10)]
    lanes = Lanes.of(spans, [[4, 2, 7, 1, 0], [6, 5]], 8, 4, torch.tensor([*range(3, 40), 9]))
    tiles = lanes.tiles.tolist()
    assert [tile[0] for tile in tiles] == [0, 8, 16, 24, 32, 37] and all(a[1] == b[0] for a, b in pairwise(tiles))
    assert [tile[2] for tile in tiles] == [0, 0, 0, 0, 0, 1]
    assert lanes.slots.tolist() == [*(([4, 2, 7, 1, 0][p // 8]) * 8 + p % 8 for p in range(3, 40)), 5 * 8 + 1]
    assert lanes.reach == 40


def test_a_matrix_of_a_card_goes_through_the_cache_on_disk() -> None:
    packed = drawn(16, 64, torch.bfloat16, CPU, torch.Generator().manual_seed(4))["4 bits"][0]
    tensors: dict[str, torch.Tensor] = {}
    tree = take_apart(ExpertWeights(CardMatrix(packed), CardMatrix(packed)), tensors)
    again = put_together(json.loads(json.dumps(tree)), tensors)
    assert torch.equal(again.w13.dense(), packed.weights())
