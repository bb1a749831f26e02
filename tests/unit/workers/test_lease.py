"""Whose a worker on the network is, and until when."""

import threading

from tensorgate.workers.lease import Lease


def test_the_first_who_greets_has_it_and_nobody_else() -> None:
    lapsed = threading.Event()
    lease = Lease(1.0, lapsed.set)
    assert not lease.renew(b"one", takes=False)
    assert lease.renew(b"one", takes=True)
    assert not lease.renew(b"other", takes=True)
    assert not lease.renew(b"other", takes=False)
    assert lease.renew(b"one", takes=False)
    assert lapsed.wait(30)  # with the lease's thread


def test_it_lapses_once_when_its_holder_is_silent_and_never_before_there_is_one() -> None:
    lapses: list[bool] = []
    lapsed = threading.Event()

    def lapse() -> None:
        lapses.append(True)
        lapsed.set()

    lease = Lease(0.05, lapse)
    assert not lapsed.wait(0.2)
    lease.renew(b"one", takes=True)
    assert lapsed.wait(30)
    assert lapses == [True]
