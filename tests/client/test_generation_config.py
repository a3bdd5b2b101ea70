from __future__ import annotations

import json

import pytest
from vocabularies import NANO_ASSETS

from swarm.client.generation_config import GenerationConfig
from swarm.client.sampling import Sampling
from swarm.errors import ModelError


def read(**raw: object) -> GenerationConfig:
    return GenerationConfig.from_assets({"generation_config.json": json.dumps(raw).encode()})


def test_without_the_file_the_temperature_is_0_7() -> None:
    assert GenerationConfig.from_assets({}) == GenerationConfig(Sampling(temperature=0.7, top_p=1.0), ())


def test_the_embedded_model_answers_greedily() -> None:
    assert GenerationConfig.from_assets(NANO_ASSETS) == GenerationConfig(Sampling(temperature=0.0), (2,))


def test_what_the_file_states_is_the_default() -> None:
    config = read(do_sample=True, temperature=0.6, top_p=0.9, top_k=20, repetition_penalty=1.05, eos_token_id=[2, 7])
    assert config == GenerationConfig(Sampling(0.6, 0.9, 20, repetition_penalty=1.05), (2, 7))


def test_what_the_file_leaves_out_or_null_stays_as_it_is() -> None:
    assert read(temperature=None, top_p=0.5, eos_token_id=2) == GenerationConfig(Sampling(0.7, 0.5), (2,))


def test_do_sample_false_is_temperature_0_whatever_else_stands_there() -> None:
    assert read(do_sample=False, temperature=0.6, top_p=0.9, top_k=5).sampling == Sampling(temperature=0.0)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"temperature": "hot"}', "temperature as 'hot'"),
        (b'{"temperature": -1}', "temperature of -1"),
        (b'{"top_k": true}', "top_k as True"),
        (b'{"top_k": 1e999}', "top_k"),
        (b'{"top_k": NaN}', "top_k"),
        (b'{"eos_token_id": [true]}', "eos_token_id"),
    ],
)
def test_an_unusable_file_is_named(raw: bytes, says: str) -> None:
    with pytest.raises(ModelError, match=rf"generation_config\.json.*{says}"):
        GenerationConfig.from_assets({"generation_config.json": raw})
