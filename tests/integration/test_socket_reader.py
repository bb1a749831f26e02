"""The reader of a ZeroMQ socket on an asyncio loop: every message, although the descriptor signals once."""

import asyncio
from collections.abc import Awaitable, Callable

import zmq

from tensorgate.gateway.dispatch.socket_reader import MAX_MESSAGES_PER_TURN, SocketReader

Socket = zmq.Socket[bytes]


def run(scenario: Callable[[Socket, Socket], Awaitable[None]]) -> None:
    """Runs it with two sockets that are connected to each other."""
    context: zmq.Context[Socket] = zmq.Context()
    one, other = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    for each in (one, other):
        each.set(zmq.LINGER, 0)
        each.set(zmq.SNDHWM, 0)
        each.set(zmq.RCVHWM, 0)
    one.bind("inproc://pair")
    other.connect("inproc://pair")

    async def limited() -> None:
        await asyncio.wait_for(scenario(one, other), 30)

    try:
        asyncio.run(limited())
    finally:
        one.close()
        other.close()
        context.term()


def test_every_message_of_a_burst_arrives_although_the_descriptor_signals_once() -> None:
    async def scenario(one: Socket, other: Socket) -> None:
        seen: asyncio.Queue[bytes] = asyncio.Queue()
        reader = SocketReader(asyncio.get_running_loop(), one, lambda: seen.put_nowait(one.recv(zmq.NOBLOCK)))
        for turn in range(3):
            number = 5 * MAX_MESSAGES_PER_TURN
            for i in range(number):
                other.send(b"%d %d" % (turn, i))
            # Sending consumes the signal of what has arrived.
            one.send(b"something")
            reader.after_send()
            assert [await seen.get() for _ in range(number)] == [b"%d %d" % (turn, i) for i in range(number)]
        reader.stop()

    run(scenario)


def test_a_receiver_that_raises_does_not_stop_the_messages_behind() -> None:
    async def scenario(one: Socket, other: Socket) -> None:
        loop = asyncio.get_running_loop()
        problems: list[object] = []
        loop.set_exception_handler(lambda _loop, what: problems.append(what["exception"]))
        seen: asyncio.Queue[bytes] = asyncio.Queue()

        def receive() -> None:
            message = one.recv(zmq.NOBLOCK)
            if message == b"1":
                raise LookupError("a fault in the handler")
            seen.put_nowait(message)

        reader = SocketReader(loop, one, receive)
        for message in (b"1", b"2", b"3"):
            other.send(message)
        assert [await seen.get(), await seen.get()] == [b"2", b"3"]
        assert [type(problem) for problem in problems] == [LookupError]
        reader.stop()
        reader.stop()

    run(scenario)


def test_a_reader_that_is_stopped_takes_nothing_any_more() -> None:
    async def scenario(one: Socket, other: Socket) -> None:
        seen: list[bytes] = []
        reader = SocketReader(asyncio.get_running_loop(), one, lambda: seen.append(one.recv(zmq.NOBLOCK)))
        other.send(b"taken")
        reader.drain()
        reader.stop()
        other.send(b"left")
        reader.drain()
        await asyncio.sleep(0)
        assert seen == [b"taken"]

    run(scenario)
