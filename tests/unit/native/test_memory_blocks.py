"""The map of a shared memory's blocks, against a model that remembers them in a dictionary."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorgate._native.memory_blocks import UNIT, Blocks

BEGIN, NUM_UNITS = 3 * UNIT, 20
END = BEGIN + NUM_UNITS * UNIT


def check_cover(blocks: Blocks, taken: dict[int, int]) -> None:
    """All of the memory is covered, without gaps; what is taken is as the model has it; free neighbours are one."""
    cover = blocks.cover()
    assert cover[0][0] == BEGIN
    for (offset, size, is_free), (following, _, follower_is_free) in itertools.pairwise(cover):
        assert offset + size == following
        assert not (is_free and follower_is_free)
    assert cover[-1][0] + cover[-1][1] == END
    assert {offset: size for offset, size, is_free in cover if not is_free} == taken
    assert blocks.used == sum(taken.values())


def lowest_fit(taken: dict[int, int], size: int) -> int | None:
    """Where a block of the size has to go: the lowest gap that is long enough."""
    at = BEGIN
    for offset, length in sorted(taken.items()):
        if offset - at >= size:
            return at
        at = offset + length
    return at if END - at >= size else None


@settings(max_examples=200)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6 * UNIT), st.integers(0, 1 << 30)), max_size=80))
def test_blocks_go_to_the_lowest_gap_that_fits_and_never_overlap(steps: list[tuple[bool, int, int]]) -> None:
    blocks = Blocks(BEGIN, END)
    taken: dict[int, int] = {}
    reached = 0
    for takes, size, choice in steps:
        if takes:
            rounded = -(-size // UNIT) * UNIT
            expected = lowest_fit(taken, rounded) if size else None
            assert blocks.take(size) == expected
            if expected is not None:
                taken[expected] = rounded
                reached = max(reached, expected + rounded)
        elif taken:
            offset = sorted(taken)[choice % len(taken)]
            blocks.give_back(offset)
            del taken[offset]
        check_cover(blocks, taken)
        assert blocks.reached == reached


def test_all_of_the_memory_can_be_taken_as_one_block_again_after_any_fragmentation() -> None:
    blocks = Blocks(BEGIN, END)
    for seed in range(20):
        offsets = [blocks.take(UNIT) for _ in range(NUM_UNITS)]
        assert blocks.take(1) is None
        random.Random(seed).shuffle(offsets)
        for offset in offsets[: NUM_UNITS // 2]:
            assert offset is not None
            blocks.give_back(offset)
        assert blocks.take(NUM_UNITS * UNIT) is None
        for offset in offsets[NUM_UNITS // 2 :]:
            assert offset is not None
            blocks.give_back(offset)
        assert blocks.take(NUM_UNITS * UNIT) == BEGIN
        blocks.give_back(BEGIN)


@pytest.mark.parametrize("size", [NUM_UNITS * UNIT + 1, 1 << 63, (1 << 64) - 1, (1 << 64) - UNIT])
def test_a_block_that_can_never_be_is_refused_without_overflow(size: int) -> None:
    blocks = Blocks(BEGIN, END)
    assert blocks.take(size) is None
    assert blocks.used == 0
