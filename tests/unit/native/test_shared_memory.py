"""Memory that gateway and worker share: what one side says of it, the other believes only as far as it can check."""

import fcntl
import mmap
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorgate._native.memory_blocks import UNIT
from tensorgate._native.reply_memory import ReplyMemory, SharedReplies
from tensorgate._native.request_memory import RequestMemory, SharedRequests

MIB = 1 << 20
UINT64 = st.integers(0, (1 << 64) - 1)
# Numbers as a peer gets them wrong: near what is right, and far from it.
NEAR = st.integers(0, 4 * MIB) | st.sampled_from([(1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - UNIT]) | UINT64


def shared_requests(memory: RequestMemory) -> SharedRequests:
    fd = memory.open_for_reading()
    try:
        return SharedRequests(fd)
    finally:
        os.close(fd)


def mapped_memory() -> list[str]:
    """This process' mappings of shared memory."""
    return [line for line in pathlib.Path("/proc/self/maps").read_text().splitlines() if "memfd:tensorgate" in line]


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_request_is_read_by_the_worker_where_the_gateway_has_put_it_until_it_is_given_back() -> None:
    memory = RequestMemory(MIB, 1)
    worker = shared_requests(memory)
    put = memory.put(b"request" * 1000)
    assert put is not None
    block, place = put
    assert worker.get(place) == b"request" * 1000
    assert memory.used == 2 * UNIT
    memory.give_back(block)
    assert memory.used == 0
    assert worker.get(place) is None


def test_a_block_that_is_used_again_is_not_the_one_it_was() -> None:
    memory = RequestMemory(MIB, 1)
    worker = shared_requests(memory)
    first = memory.put(b"a" * 100)
    assert first is not None
    memory.give_back(first[0])
    second = memory.put(b"b" * 100)
    assert second is not None
    assert second[1][0] == first[1][0]
    assert worker.get(first[1]) is None
    assert worker.get(second[1]) == b"b" * 100


@settings(max_examples=300)
@given(NEAR, NEAR, NEAR)
def test_no_claim_about_a_request_is_followed_outside_the_memory(offset: int, size: int, generation: int) -> None:
    memory = RequestMemory(MIB, 1)
    worker = shared_requests(memory)
    put = memory.put(b"x" * 5000)
    assert put is not None
    begin = put[1][0]
    for place in ((offset, size, generation), (begin, size, 1), (begin, 5000, generation), (offset, 5000, 1)):
        found = worker.get(place)
        assert found is None or (place[0] == begin and place[1] <= memory.size - begin and place[2] == 1)
    memory.give_back(put[0])


def test_a_full_memory_and_a_small_request_have_no_block() -> None:
    memory = RequestMemory(MIB, 1000)
    assert memory.put(b"x" * 999) is None
    assert memory.num_full == 0
    blocks = []
    while put := memory.put(b"x" * 100_000):
        blocks.append(put[0])
    assert len(blocks) == (memory.size - 2 * UNIT) // (25 * UNIT)
    assert memory.num_full == 1
    assert memory.put(b"x" * (1 << 21)) is None
    assert memory.num_full == 2
    for block in blocks:
        memory.give_back(block)
    assert memory.used == 0


def test_a_worker_cannot_write_to_the_memory_of_requests_nor_make_any_smaller() -> None:
    memory, replies = RequestMemory(MIB, 1), ReplyMemory(MIB)
    fd = memory.open_for_reading()
    with pytest.raises(PermissionError):
        mmap.mmap(fd, MIB, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    for each in (fd, replies.fd, memory.fd):
        for size in (0, 2 * MIB):
            with pytest.raises(OSError, match=r"not permitted|Invalid|Bad file"):
                os.ftruncate(each, size)
        assert fcntl.fcntl(each, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(fd)


def test_what_is_no_shared_memory_is_refused() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(MIB)
        unsealed = os.memfd_create("x", os.MFD_ALLOW_SEALING)
        os.truncate(unsealed, MIB)
        for fd in (-1, 1 << 20, file.fileno(), unsealed):
            with pytest.raises(OSError, match="no memory that a gateway shares"):
                SharedRequests(fd)
            with pytest.raises(OSError, match="no memory that a gateway shares"):
                SharedReplies(fd, 1)
        # Sealed, but no gateway's.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL  # type: ignore[attr-defined]
        fcntl.fcntl(unsealed, fcntl.F_ADD_SEALS, seals)  # type: ignore[attr-defined]
        with pytest.raises(OSError, match="no memory that a gateway shares"):
            SharedRequests(unsealed)
        os.close(unsealed)


@pytest.mark.parametrize("size", [0, 1, 65535, 1 << 62])
def test_a_size_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="shared memory has"):
        RequestMemory(size, 1)
    with pytest.raises(ValueError, match="shared memory has"):
        ReplyMemory(size)


def test_memory_that_was_much_in_use_goes_back_to_the_kernel_when_nothing_is() -> None:
    memory = RequestMemory(256 * MIB, 1)
    blocks = [memory.put(b"x" * (8 * MIB)) for _ in range(20)]
    assert os.fstat(memory.fd).st_blocks * 512 > 160 * MIB
    for put in blocks:
        assert put is not None
        memory.give_back(put[0])
    assert os.fstat(memory.fd).st_blocks * 512 <= 65 * MIB


def test_nothing_of_it_stays_mapped_or_open() -> None:
    mapped, num_open = mapped_memory(), len(os.listdir("/proc/self/fd"))
    memory, replies = RequestMemory(MIB, 1), ReplyMemory(MIB)
    worker, writer = shared_requests(memory), SharedReplies(replies.fd, 1)
    place = writer.put(b"x" * 100)
    assert place is not None
    assert len(mapped_memory()) == len(mapped) + 4
    assert replies.get(place) is not None
    del memory, replies, worker, writer
    assert mapped_memory() == mapped
    assert len(os.listdir("/proc/self/fd")) == num_open


def test_threads_that_take_and_give_back_do_not_disturb_one_another() -> None:
    memory = RequestMemory(4 * MIB, 1)
    worker = shared_requests(memory)
    wrong: list[object] = []

    def work(number: int) -> None:
        content = bytes([number]) * (50_000 + 1000 * number)
        for _ in range(300):
            put = memory.put(content)
            if put is not None:
                if worker.get(put[1]) != content:
                    wrong.append(put)
                memory.give_back(put[0])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert memory.used == 0


# --- replies ----------------------------------------------------------------------------------------------------------


def test_a_reply_is_read_by_the_gateway_and_its_block_comes_back_to_the_worker() -> None:
    memory = ReplyMemory(MIB)
    worker = SharedReplies(memory.fd, 1000)
    assert not memory.is_attached
    worker.attach()
    assert memory.is_attached
    place = worker.put(b"reply" * 1000)
    assert place is not None
    assert worker.used == 2 * UNIT  # with room for a little more
    assert memory.get(place) == b"reply" * 1000
    assert memory.held_bytes == 0
    assert worker.used == 0
    assert memory.get(place) is None  # it was given back


def test_a_reply_that_the_gateway_is_not_told_of_goes_back_at_once() -> None:
    memory = ReplyMemory(MIB)
    worker = SharedReplies(memory.fd, 1)
    assert worker.put(b"x" * 10_000, tell=False) is None
    assert worker.used == 0


def test_replies_that_find_no_room_are_written_elsewhere_and_counted() -> None:
    memory = ReplyMemory(MIB)
    worker = SharedReplies(memory.fd, 1000)
    assert worker.put(b"x" * 999) is None
    assert memory.num_full == 0
    places = []
    while place := worker.put(b"x" * 200_000):
        places.append(place)
    assert len(places) == 5
    assert memory.num_full == 1
    for place in places:
        assert memory.get(place) == b"x" * 200_000
    assert worker.put(b"x" * 1_000_000) is not None


@settings(max_examples=300)
@given(NEAR, NEAR, NEAR)
def test_no_claim_about_a_reply_is_followed_outside_the_memory(offset: int, size: int, generation: int) -> None:
    memory = ReplyMemory(MIB)
    worker = SharedReplies(memory.fd, 1)
    place = worker.put(b"y" * 5000)
    assert place is not None
    begin = place[0]
    for lie in ((offset, size, generation), (begin, 5000, generation), (offset, 5000, 1)):
        found = memory.get(lie)
        assert found is None or (lie[0] == begin and lie[1] <= memory.size - begin and lie[2] == 1)
        if found is not None:
            return  # the truth, by chance
    assert memory.get((begin, memory.size - begin + 1, 1)) is None
    assert memory.get(place) == b"y" * 5000


def test_a_worker_that_scribbles_over_all_of_its_memory_harms_itself_only() -> None:
    memory = ReplyMemory(MIB)
    worker = SharedReplies(memory.fd, 1)
    place = worker.put(b"y" * 5000)
    assert place is not None
    with mmap.mmap(memory.fd, MIB) as everything:
        for byte in (b"\xff", b"\x00", b"\x01", b"\x7f"):
            everything[:] = byte * MIB
            assert memory.get(place) is None
            assert memory.num_full >= 0
            for offset in range(0, MIB, UNIT):
                number = int.from_bytes(byte * 8, "little")
                memory.get((offset, MIB, number))
                memory.get((offset, MIB - offset, number))
            assert memory.held_bytes == 0


KILLED_WRITER = """
import os, signal, sys
from tensorgate._native.reply_memory import SharedReplies
worker = SharedReplies(int(sys.argv[1]), 1)
print(*worker.put(b"z" * 100_000), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_reply_outlives_the_worker_that_was_killed_after_telling_of_it() -> None:
    memory = ReplyMemory(MIB)
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WRITER, str(memory.fd)],
        pass_fds=[memory.fd],
        stdout=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    offset, size, generation = map(int, done.stdout.split())
    memory.close_fd()
    assert memory.get((offset, size, generation)) == b"z" * 100_000
