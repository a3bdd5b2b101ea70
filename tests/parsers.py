"""Every parser of what comes from outside, each as one function of bytes: it reads them, or says in words why not."""

from __future__ import annotations

import asyncio
import io
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from google.protobuf.message import DecodeError
from rich.console import Console

from cluster.announcement import Announcement
from cluster.calling import Calling
from cluster.memo import Memo
from cluster.own_devices import left_out
from cluster.revocations import Revocations
from cluster.rigs_file import read_rigs
from swarm.cli import settings
from swarm.cli.block_counts import block_counts
from swarm.cli.invitations import given_out
from swarm.cli.one_head import noted_head
from swarm.cli.rigs_noted import noted_rigs, rigs_of
from swarm.cli.status_table import Rates, picture
from swarm.cli.watch_picture import BusyShares, watch_picture
from swarm.client.chat_format import chat_format
from swarm.client.generation_config import GenerationConfig
from swarm.client.messages import Message
from swarm.client.plan_source import FilePlan
from swarm.client.tokenizer import read_tokenizer
from swarm.client.tools import read_tools
from swarm.config import ModelConfig
from swarm.errors import SwarmError, UsageError
from swarm.logs.record import read_line
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.describe import assets
from swarm.weights.header import read_header
from swarm.weights.packed import packed_entries
from swarm.weights.source import resolve
from swarm.wire.admission import Admission
from swarm.wire.credentials import Credentials
from swarm.wire.revoking import request_for
from swarm.wire.status import from_details
from swarm.wire.status_document import read_status
from swarm.wire.tensors import from_wire
from swarm.wire.v1.tensor_pb2 import Tensor

CORPUS = Path(__file__).parent / "corpus"
Parser = Callable[[bytes], None]
NANO: Mapping[str, bytes] = {p.name: p.read_bytes() for p in resolve("nano").iterdir() if p.suffix in (".json", ".model")}
WITHOUT = {name: raw for name, raw in NANO.items() if name != "tokenizer.model"}


def refused(parse: Parser, raw: bytes) -> SwarmError | None:
    """Why a parser does not read something; None where it does. Anything but an error of ours is raised."""
    try:
        parse(raw)
    except SwarmError as error:
        assert str(error) and "\n" not in str(error).strip() and "\x1b" not in str(error), f"no sentence: {error!r}"
        return error
    return None


def in_file(name: str, read: Callable[[Path], object]) -> Parser:
    """A parser of a file of that name in a folder."""

    def parse(raw: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(raw)
            read(path)

    return parse


def _checkpoint(path: Path) -> None:
    """The embedded model's folder, with another file in the place of one."""
    for name in {"config.json", "model.safetensors"} - {path.name}:
        (path.parent / name).symlink_to(resolve("nano") / name)
    Checkpoint.open(path.parent).model_id()
    assets(path.parent)


def _packed(path: Path) -> None:
    """The config of a checkpoint that has one matrix as GPTQ packs it."""
    shapes = {"m.qweight": ("I32", [16, 64]), "m.qzeros": ("I32", [1, 8]), "m.scales": ("F16", [1, 64]), "m.g_idx": ("I32", [128])}
    table, at = {}, 0
    for name, (dtype, shape) in shapes.items():
        end = at + math.prod(shape) * (2 if dtype == "F16" else 4)
        table[name], at = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}, end
    header, weights = json.dumps(table).encode(), path.with_name("model.safetensors")
    weights.write_bytes(len(header).to_bytes(8, "little") + header + bytes(at))
    ModelConfig.from_folder(path.parent)  # which is read first
    packed_entries(read_header(weights).entries, path.read_bytes(), path)


def _of_the_client(given: Mapping[str, bytes]) -> None:
    """What a client makes of a model's small files."""
    tokenizer = read_tokenizer(given)
    tokens = tokenizer.encode("Once upon a time, ünï→😀")
    tokenizer.decode(tokens)
    _ = GenerationConfig.from_assets(given).sampling
    chat_format(given, tokenizer).tool_calls(tokens)


def small_file(name: str, others: Mapping[str, bytes] = NANO) -> Parser:
    """A parser of one of the small files that come to a client, beside sound ones."""
    return lambda raw: _of_the_client({**others, name: raw})


def _template(raw: bytes) -> None:
    given = {**NANO, "chat_template.jinja": raw}
    tokenizer = read_tokenizer(given)
    chat_format(given, tokenizer).prompt([Message("system", "Be brief."), Message("user", "Hi")])


def _tensor(raw: bytes) -> None:
    from_wire(Tensor.FromString(raw), torch.float32, (2, 3), torch.device("cpu"))


def undecodable(parse: Parser) -> Parser:
    """What is no message is refused by `swarm.wire.guard`, before a parser of ours sees it."""

    def parsing(raw: bytes) -> None:
        try:
            parse(raw)
        except DecodeError:
            return

    return parsing


def _remembered(path: Path) -> None:
    shutil.copy(path, settings.config_dir() / "swarms.json")
    settings.recall()


def _home(read: Parser) -> Parser:
    def parse(raw: bytes) -> None:
        settings.config_dir().mkdir(parents=True, exist_ok=True)
        read(raw)

    return parse


def _announced(raw: bytes) -> None:
    """The text record of an mDNS answer, its strings one after another behind their lengths."""
    text: dict[bytes, bytes | None] = {}
    while raw:
        key, found, value = raw[1 : 1 + raw[0]].partition(b"=")
        text[key], raw = value if found else None, raw[1 + raw[0] :]
    announcement = Announcement.read(text)
    assert announcement is None or announcement.name.isprintable()


def _log_line(raw: bytes) -> None:
    record = read_line(raw.decode(errors="replace"))
    assert record is None or read_line(record.line())


def _error(raw: bytes) -> None:
    """What another one says went wrong; never silence, and nothing that a terminal obeys."""
    assert str(from_details(raw.decode(errors="replace"))).isprintable()


def _status(raw: bytes) -> None:
    """What a swarm's door says of itself, and all that is made of it."""
    document = read_status(raw.decode(errors="replace"), "the swarm")
    for each in (document.get("waiting", ""), *document.get("notes", ())):
        assert not each or each.isprintable()
    blocks, rigs = block_counts(document), rigs_of(document)
    looks = [picture(document, Rates().of(document, 1.0)), watch_picture(document, {}, BusyShares().of(document))]
    Console(file=io.StringIO(), markup=False).print(*looks, blocks, rigs, left_out(document, "a"))


def _notes(path: Path) -> None:
    """What a rig, a head or a person's machine wrote down: whatever is in such a file, it goes on."""
    for name in ("rigs.json", "invitations.json"):
        settings.write_private(settings.state_dir() / name, "")
        shutil.copy(path, settings.state_dir() / name)
    noted_rigs("127.0.0.1:7700")
    with suppress(UsageError):
        [invitation.state("") for invitation in given_out()]
    Memo(path.with_name("target.json")).pauses(forget=False)
    Revocations(admission := Admission(), Credentials(), path, list)
    request_for(admission.revoked)
    Calling(Credentials(), path, "").noted()


PARSERS: dict[str, Parser] = {
    "status.json": _status,
    "paused.json": in_file("paused.json", _notes),
    "announcement": _announced,
    "log-line": _log_line,
    "error-details": _error,
    "tools": lambda raw: read_tools(raw.decode("utf-8", "replace"), "the list of tools") and None,
    "config.json": in_file("config.json", _checkpoint),
    "quantized-config.json": in_file("config.json", _packed),
    "model.safetensors.index.json": in_file("model.safetensors.index.json", _checkpoint),
    "plan.json": in_file("plan.json", lambda path: asyncio.run(FilePlan(path).plan())),
    "rigs.toml": in_file("rigs.toml", read_rigs),
    "tokenizer.json": small_file("tokenizer.json", {}),
    "tokenizer.model": small_file("tokenizer.model", WITHOUT),
    "tokenizer_config.json": small_file("tokenizer_config.json"),
    "special_tokens_map.json": small_file("special_tokens_map.json"),
    "generation_config.json": small_file("generation_config.json"),
    "chat_template.jinja": _template,
    "invitation": lambda raw: Credentials(raw.decode("latin-1").strip()).check_member(),
    "wire-tensor": undecodable(_tensor),
    "target.json": in_file("target.json", lambda path: Memo(path).read()),
    "measured.json": in_file("measured.json", lambda path: Memo(path.with_name("target.json")).measurements(forget=False)),
    "swarms.json": _home(in_file("swarms.json", _remembered)),
    "head.json": in_file("head.json", lambda path: noted_head(path.parent)),
}
