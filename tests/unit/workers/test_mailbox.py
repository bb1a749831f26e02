"""The mailbox: the order of calls, its eventfd, and its end while somebody posts."""

import os
import select
import threading

import pytest

from tensorgate.workers.mailbox import Mailbox


def is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_posted_calls_run_in_order_and_the_descriptor_tells_of_them() -> None:
    mailbox = Mailbox()
    ran: list[int] = []
    assert not is_readable(mailbox.event_fd)
    for number in range(3):
        mailbox.post(lambda number=number: ran.append(number))
    assert is_readable(mailbox.event_fd)
    mailbox.run_posted()
    assert ran == [0, 1, 2]
    assert not is_readable(mailbox.event_fd)
    mailbox.run_posted()
    mailbox.close()


def test_a_call_that_posts_another_has_it_run() -> None:
    mailbox = Mailbox()
    ran: list[str] = []
    mailbox.post(lambda: mailbox.post(lambda: ran.append("inner")))
    mailbox.run_posted()
    assert ran == ["inner"]
    mailbox.close()


def test_what_is_posted_after_the_end_is_dropped_and_rings_nowhere() -> None:
    mailbox = Mailbox()
    mailbox.close()
    taken_over = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        assert taken_over == mailbox.event_fd, "the next descriptor has the number of the one that was closed"
        mailbox.post(lambda: None)
        assert not is_readable(taken_over)
    finally:
        os.close(taken_over)


def test_the_end_waits_for_whoever_posts_just_then(monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox = Mailbox()
    closer = threading.Thread(target=mailbox.close)
    order: list[str] = []
    ring, close = os.eventfd_write, os.close

    def slow_ring(fd: int, value: int) -> None:
        closer.start()
        # Long enough for a close that does not wait; one that does is not held up by it.
        closer.join(0.2)
        order.append("rung")
        ring(fd, value)

    def noted_close(fd: int) -> None:
        order.append("closed")
        close(fd)

    monkeypatch.setattr(os, "eventfd_write", slow_ring)
    monkeypatch.setattr(os, "close", noted_close)
    mailbox.post(lambda: None)
    closer.join(10)
    assert order == ["rung", "closed"]


def test_a_signal_handler_may_post_while_its_own_thread_does(monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox = Mailbox()
    ran: list[str] = []
    ring = os.eventfd_write

    def interrupted_ring(fd: int, value: int) -> None:
        monkeypatch.setattr(os, "eventfd_write", ring)
        mailbox.post(lambda: ran.append("handler"))
        ring(fd, value)

    monkeypatch.setattr(os, "eventfd_write", interrupted_ring)
    mailbox.post(lambda: ran.append("thread"))
    mailbox.run_posted()
    assert sorted(ran) == ["handler", "thread"]
    mailbox.close()
