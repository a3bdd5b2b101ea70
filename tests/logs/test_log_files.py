"""What a process says, in a file that stays small, and how it is read."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from swarm.logs import file
from swarm.logs.file import LogFile
from swarm.logs.reader import Reader
from swarm.logs.record import read_line


def test_a_line_on_disk_is_one_json_object_with_its_time_in_utc(tmp_path: Path) -> None:
    with LogFile(tmp_path, "attic", "worker cuda:0"):
        logging.getLogger("swarm.worker").info("one\nthing, %d", 7)
        try:
            raise ValueError("broken")
        except ValueError:
            logging.getLogger("cluster.rig").exception("ends")
    first, second = map(json.loads, (tmp_path / "worker-cuda-0.jsonl").read_text().splitlines())
    assert first["at"].endswith("Z") and (first["rig"], first["process"]) == ("attic", "worker cuda:0")
    assert (first["level"], first["said"], first["where"]) == ("info", "one thing, 7", "swarm.worker") and "trace" not in first
    assert "ValueError: broken" in second["trace"] and second["level"] == "error"


def test_a_process_keeps_two_files_of_a_mebibyte_at_most_and_a_reader_misses_nothing(tmp_path: Path) -> None:
    reader, seen = Reader(tmp_path), 0
    said = "x" * 2000
    with LogFile(tmp_path, "attic", "up"):
        for count in range(2000):
            logging.getLogger("swarm").info("%d %s", count, said)
            if count % 300 == 0:
                seen += len(reader.new())
    seen += len(reader.new())
    assert seen == 2000
    assert len(list(tmp_path.iterdir())) == 2
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * file.FILE_BYTES


def test_a_damaged_line_costs_only_itself_and_half_a_line_is_waited_for(tmp_path: Path) -> None:
    whole = read_line('{"at": "2026-01-01T00:00:00.000Z", "rig": "a", "process": "up", "level": "info", "said": "hello"}')
    assert whole is not None
    path, text = tmp_path / "up.jsonl", whole.line()
    path.write_bytes(b"\x00\xff{\n[]\n" + text.encode() + b"\n" + text[:20].encode())
    reader = Reader(tmp_path)
    assert reader.new() == [whole]
    with path.open("a") as more:
        more.write(text[20:] + "\n")
    assert reader.new() == [whole] and reader.new() == []


def test_a_disk_that_takes_no_line_stops_nobody(tmp_path: Path) -> None:
    with LogFile(tmp_path, "attic", "up") as log:
        Path(log.baseFilename).mkdir()
        logging.getLogger("swarm").info("lost")
