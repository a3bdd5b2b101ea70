"""Sessions that begin alike share pages: counted, copied before one of them writes something else, kept until room is wanted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from swarm.config import ModelConfig
from swarm.model.cache import PagedCache
from swarm.model.holding import Move
from swarm.model.kv import Numbers
from swarm.model.rows import Rows, Segment
from swarm.prefix_hash import prefix_hashes

PAGE = 4
SYSTEM = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
CONFIG = ModelConfig("MixtralForCausalLM", 8, 8, 2, 1, 1, 8, 4, 2, 64, 4096, 1e-5, 1e6, False, "fp32", 1, (2,))


class Chats:
    """Sessions over one cache, whose values are their token ids: the mean of what is attended to says which were read."""

    def __init__(self, pages: int, kept_as: str = "") -> None:
        self.cache = PagedCache(CONFIG, pages, PAGE, torch.float32, kept_as=kept_as)
        self.cache.add_block(0)
        self.tokens: dict[bytes, list[int]] = {}
        self.tolerance = 0.2 if kept_as else 1e-3

    def open(self, name: bytes, text: Sequence[int], positions: int) -> int | None:
        held = self.cache.open(name, positions, prefix_hashes(text), [0])
        if held is not None:
            self.tokens[name] = list(text[:held])
        return held

    def say(self, name: bytes, position: int, tokens: Sequence[int]) -> bool:
        """One Step; False where others share what it writes over and there is no room for a copy."""
        said = self.tokens[name][:position] + list(tokens)
        hashes = prefix_hashes(said)
        moves = self.cache.write(name, position, hashes[position + 1 :])
        if moves is None:
            return False
        if moves:
            self.cache.move(name, moves)
        rows = Rows.of([Segment(name, 0, len(tokens), position)])
        x = torch.tensor(tokens, dtype=torch.float32).view(-1, 1, 1).expand(-1, 1, 8)
        self.cache.append(0, rows, torch.zeros_like(x), x)
        self.tokens[name] = said
        self.cache.know(name, 0, hashes[: len(said) // PAGE * PAGE + 1], [0])
        return True

    def check(self, name: bytes) -> None:
        """What a Session reads is what it said."""
        said = self.tokens[name]
        rows = Rows.of([Segment(name, 0, 1, len(said) - 1)])
        seen = float(self.cache.attend(0, rows, torch.zeros(1, 1, 8))[0, 0, 0])
        assert seen == pytest.approx(sum(said) / len(said), abs=self.tolerance), name

    def close(self, name: bytes) -> None:
        del self.tokens[name]
        self.cache.release(name)


@pytest.mark.parametrize("kept_as", ["", "int8"])
def test_a_session_that_begins_like_another_has_its_pages_and_changes_nothing_in_them(kept_as: str) -> None:
    chats = Chats(20, kept_as)
    chats.open(b"a", [], 24)
    chats.say(b"a", 0, [*SYSTEM, 20, 21])
    assert chats.open(b"b", [*SYSTEM, 30, 31], 24) == 10  # two whole pages, and a copy of the third's first half
    assert chats.cache.free_pages == 20 - 6 - 4
    chats.say(b"b", 10, [30, 31])
    chats.say(b"b", 12, [32])
    chats.say(b"a", 12, [22])
    for name in (b"a", b"b"):
        chats.check(name)


def test_who_writes_something_else_into_a_shared_page_gets_a_copy_and_the_others_keep_theirs() -> None:
    chats = Chats(20)
    chats.open(b"a", [], 16)
    chats.say(b"a", 0, [*SYSTEM, 20, 21])
    chats.open(b"b", [*SYSTEM, 20, 21, 22], 16)
    before = chats.cache.free_pages
    chats.say(b"b", 6, [90, 91])
    assert chats.cache.free_pages == before - 2, "the page that it writes to, and the shared one behind it"
    chats.check(b"a")
    chats.say(b"b", 8, [92, 93, 94, 95, 96])
    for name in (b"a", b"b"):
        chats.check(name)
    assert chats.cache.free_pages == before - 2


def test_what_is_written_again_with_the_same_tokens_stays_shared() -> None:
    chats = Chats(20)
    chats.open(b"a", [], 16)
    chats.say(b"a", 0, [*SYSTEM, 20, 21])
    chats.open(b"b", [*SYSTEM, 20, 21, 22], 16)
    before = chats.cache.free_pages
    chats.say(b"b", 0, [*SYSTEM, 20, 21, 22])
    chats.say(b"a", 3, [*SYSTEM[3:], 20, 21, 24])
    for name in (b"a", b"b"):
        chats.check(name)
    assert chats.cache.free_pages == before


def test_a_page_that_nobody_else_has_is_written_over_without_a_copy() -> None:
    chats = Chats(4)
    chats.open(b"a", [], 16)
    chats.say(b"a", 0, SYSTEM[:8])
    assert chats.say(b"a", 5, [90, 91, 92])
    chats.close(b"a")
    assert chats.open(b"b", [*SYSTEM[:5], 90, 91, 92, 1], 16) == 8
    chats.close(b"b")
    assert chats.open(b"c", SYSTEM, 12) == 5, "what was written over is known no more"


def test_what_a_session_leaves_is_found_by_the_next_until_its_room_is_wanted_the_oldest_first() -> None:
    chats = Chats(8)
    for name, first in ((b"a", 100), (b"b", 200)):
        chats.open(name, [], 8)
        chats.say(name, 0, [first, *SYSTEM[:7]])
        chats.close(name)
    assert (chats.cache.free_pages, chats.cache.idle_pages) == (8, 4)
    assert chats.open(b"c", [100, *SYSTEM[:7]], 8) == 8  # used last from now on
    chats.close(b"c")
    assert chats.open(b"d", [], 24) == 0  # six pages: the two of b had to go
    chats.close(b"d")
    assert chats.open(b"e", [200, *SYSTEM[:7]], 8) == 0
    assert chats.open(b"f", [100, *SYSTEM[:7]], 8) == 8


def test_a_session_that_fits_alone_opens_whatever_was_left_behind() -> None:
    chats = Chats(4)
    chats.open(b"a", [], 16)
    chats.say(b"a", 0, SYSTEM + SYSTEM[:6])
    chats.close(b"a")
    assert chats.open(b"b", [*SYSTEM, 99], 16) == 8, "the page to copy from is needed itself"


def test_where_a_copy_has_no_room_nothing_is_changed_and_nobody_is_hurt() -> None:
    chats = Chats(5)
    chats.open(b"a", [], 12)
    chats.say(b"a", 0, [*SYSTEM, 20, 21])
    chats.open(b"b", [*SYSTEM, 20, 21, 22], 16)
    chats.open(b"c", [], 4)
    assert chats.cache.free_pages == 0
    assert not chats.say(b"b", 2, [90])
    for name in (b"a", b"b"):
        chats.check(name)


def test_a_block_that_is_dropped_is_in_no_known_page() -> None:
    chats = Chats(8)
    chats.cache.add_block(1)
    chats.open(b"a", [], 16)
    chats.say(b"a", 0, [*SYSTEM, 20, 21])
    hashes = prefix_hashes([*SYSTEM, 20, 21, 22])
    assert chats.cache.open(b"both", 4, hashes, [0, 1]) == 0, "Block 1 was never computed"
    chats.cache.drop_block(0)
    chats.cache.add_block(0)
    assert chats.cache.open(b"b", 4, hashes, [0]) == 0


def test_ten_thousand_random_sessions_leave_no_page_behind_and_one_run_of_free_ones() -> None:
    chats, dice, refused, shared = Chats(48), random.Random(5), 0, 0
    systems = [[dice.randrange(60) for _ in range(length)] for length in (9, 14, 26, 33)]
    for number in range(10_000):
        name = b"%d" % number
        text = dice.choice(systems)[: dice.choice([5, 40, 40])] + [dice.randrange(60) for _ in range(dice.randint(1, 6))]
        held = chats.open(name, text, len(text) + 8)
        if held is None:
            refused += 1
        else:
            shared += held > 0
            at = min(held, len(text) - 1)
            if chats.say(name, at, text[at:]) and dice.random() < 0.5:
                chats.say(name, dice.randint(0, len(text)), [dice.randrange(60) for _ in range(dice.randint(1, 6))])
        while len(chats.tokens) > 5 or (chats.tokens and dice.random() < 0.4):
            leaving = dice.choice(sorted(chats.tokens))
            if chats.tokens[leaving]:
                chats.check(leaving)
            chats.close(leaving)
        assert chats.cache.idle_pages <= chats.cache.free_pages <= 48
    for name in list(chats.tokens):
        chats.close(name)
    assert refused < 5_000 < shared, "else little was tried"
    assert chats.cache.free_pages == 48
    assert chats.cache.open(b"all", 48 * PAGE, [], [0]) == 0
    assert chats.cache._holdings[b"all"].laid.run == 48
    assert len(chats.cache._pages.prefixes) == 0 and not chats.cache._pages.prefixes._behind


def test_blocks_of_another_plan_may_come_while_pages_are_copied() -> None:
    cache = PagedCache(CONFIG, 64, 32, torch.float32)
    for block in range(8):
        cache.add_block(block)
    assert cache.reserve(b"s", 320)

    class Slow(Numbers):
        def copy(self, source: int, target: int) -> None:
            cache.add_block(100)
            super().copy(source, target)

    cache._pools[3] = replace(cache._pools[3], keys=Slow(cache._pools[3].keys.data))  # type: ignore[attr-defined]
    cache.move(b"s", (Move(0, 0, 0, copied=True),))
    assert 100 in cache.blocks
