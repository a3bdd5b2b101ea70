"""Small tokenizer.json files in the manner of the families', trained here on a page of text."""

from __future__ import annotations

import functools
import json
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from swarm.client.json_tokenizer import JsonTokenizer

PAGE = """The quick brown fox jumps over the lazy dog. It's 12345 o'clock, and we'll see: don't panic!
def main(args):\n    return {"name": "x", "parameters": [1, 2, 3]}\n\nДобрый день, мир. 你好世界。 héllo wörld naïve café 😀👩‍👩‍👧
user assistant system tool call result weather in Paris is fine, thank you   very    much. What is the capital of France?
"""
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>"]
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
HARMONY = ["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>", "<|end|>"]
HARMONY += ["<|message|>", "<|call|>"]
DEEPSEEK = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"]
DEEPSEEK += ["<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"]
DEEPSEEK += ["<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>", "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"]
MARKERS = ["<unk>", "<s>", "</s>"]


def byte_level(splits: list[Any], specials: list[str], plain: tuple[str, ...] = (), bos: str = "") -> Tokenizer:
    """Byte-level BPE with these splits before it."""
    made = Tokenizer(models.BPE(ignore_merges=bool(bos)))
    made.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator([PAGE] * 3, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False))
    made.add_special_tokens([AddedToken(text, normalized=False) for text in specials])
    made.add_tokens([AddedToken(text, normalized=False) for text in plain])
    if bos:
        made.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=[(bos, made.token_to_id(bos))])
    return made


def split(pattern: str) -> Any:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def pieces(prepend: bool) -> Tokenizer:
    """BPE with bytes to fall back on, as Llama 2 has it: spaces marked by a normalizer, or by a pre-tokenizer."""
    made = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    mark = normalizers.Replace(" ", "▁")
    if prepend:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), mark])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = [*MARKERS, *(f"<0x{byte:02X}>" for byte in range(256))]
    alphabet = sorted(set("▁abcdefghijklmnopqrstuvwxyzTDIW.,:'12345é"))
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=specials, initial_alphabet=alphabet, limit_alphabet=60, show_progress=False
    )
    made.train_from_iterator([word for word in PAGE.split() for _ in range(3)], trainer)
    made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    raw = json.loads(made.to_str())
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] in MARKERS]
    return Tokenizer.from_str(json.dumps(raw))


def unigram() -> Tokenizer:
    """As T5 and its like have it: no bytes, `▁` put and taken by the library's own steps."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=MARKERS, unk_token="<unk>", show_progress=False)
    made.train_from_iterator([PAGE] * 3, trainer)
    return made


def deepseek() -> Tokenizer:
    splits = [split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(QWEN)]
    return byte_level(splits, DEEPSEEK, ("<think>", "</think>"), bos=DEEPSEEK[0])


def qwen() -> Tokenizer:
    made = byte_level([split(QWEN)], CHATML, ("<tool_call>", "</tool_call>", "<think>", "</think>"))
    made.normalizer = normalizers.NFC()
    return made


MAKERS = {
    "llama3": lambda: byte_level([split(CL100K)], LLAMA3, bos=LLAMA3[0]),
    "qwen": qwen,
    "deepseek": deepseek,
    "gpt-oss": lambda: byte_level([split(O200K)], HARMONY),
    "dbrx": lambda: byte_level([split(CL100K)], CHATML),
    "llama2": lambda: pieces(prepend=True),
    "llama2-new": lambda: pieces(prepend=False),
    "unigram": unigram,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama3": {"bos_token": LLAMA3[0], "eos_token": "<|eot_id|>"},
    "qwen": {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "deepseek": {"bos_token": {"content": DEEPSEEK[0]}, "eos_token": {"content": DEEPSEEK[1]}},
    "gpt-oss": {"bos_token": "<|startoftext|>", "eos_token": "<|return|>"},
    "dbrx": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "add_bos_token": False},
    "llama2": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "llama2-new": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "unigram": {"eos_token": "</s>", "unk_token": "<unk>"},
}
NAMES = list(MAKERS)


@functools.cache
def library(name: str) -> Tokenizer:
    """The tokenizer that was trained: what ours must agree with."""
    return MAKERS[name]()


def assets_of(name: str, template: object = None, **config: object) -> dict[str, bytes]:
    raw = {**CONFIGS[name], "chat_template": template, **config}
    return {"tokenizer.json": library(name).to_str().encode(), "tokenizer_config.json": json.dumps(raw).encode()}


@functools.cache
def ours(name: str) -> JsonTokenizer:
    return JsonTokenizer.read("tokenizer.json", assets_of(name))
