"""The resolver of names: which addresses it gives, and that a system's resolver that hangs holds nothing up."""

import asyncio
import socket
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from tensorgate.gateway.dispatch import name_resolver
from tensorgate.gateway.dispatch.name_resolver import NameResolver, resolve
from tensorgate.protos.status_codes import Code, ServingError

IPV4, IPV6 = socket.AF_INET, socket.AF_INET6


def entry(family: int, host: str) -> tuple[int, int, int, str, tuple[Any, ...]]:
    return (family, socket.SOCK_STREAM, 6, "", (host, 0) if family == IPV4 else (host, 0, 0, 0))


def answer_with(monkeypatch: pytest.MonkeyPatch, *entries: tuple[int, str]) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: [entry(*each) for each in entries])


@pytest.mark.parametrize(
    ("entries", "addresses"),
    [
        ([(IPV4, "10.0.0.2"), (IPV4, "10.0.0.1"), (IPV4, "10.0.0.2")], ["10.0.0.1", "10.0.0.2"]),
        ([(IPV6, "fd00::2"), (IPV6, "fd00::1")], ["fd00::1", "fd00::2"]),
        # A worker that has both is one worker.
        ([(IPV6, "fd00::1"), (IPV4, "10.0.0.1")], ["10.0.0.1"]),
        ([(IPV6, "fe80::1%eth0")], ["fe80::1"]),
    ],
)
def test_addresses_come_in_order_and_of_one_family(
    monkeypatch: pytest.MonkeyPatch, entries: Sequence[tuple[int, str]], addresses: list[str]
) -> None:
    answer_with(monkeypatch, *entries)
    assert resolve("w") == addresses
    assert asyncio.run(_once("w")) == addresses


def test_a_name_without_addresses_and_one_that_is_not_known_are_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch)
    with pytest.raises(ServingError, match="it has no address"):
        resolve("w")

    def fail(*_args: object, **_named: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ServingError, match="Name or service not known") as caught:
        asyncio.run(_once("w"))
    assert caught.value.code is Code.UNAVAILABLE


def test_a_label_that_is_too_long_is_an_error_of_the_name() -> None:
    with pytest.raises(ServingError) as caught:
        resolve("w" * 64)
    assert caught.value.code is Code.UNAVAILABLE


def test_a_resolver_that_hangs_is_given_up_in_time_and_not_asked_twice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    may_answer = threading.Event()
    asked: list[str] = []

    def hang(host: str, *_args: object, **_named: object) -> Any:
        asked.append(host)
        may_answer.wait(10)
        return [entry(IPV4, "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(name_resolver, "RESOLVE_TIMEOUT_S", 0.01)

    async def scenario() -> None:
        resolver = NameResolver("w")
        for _ in range(2):
            with pytest.raises(ServingError, match="no answer within"):
                await resolver()
        assert asked == ["w"]
        may_answer.set()
        monkeypatch.setattr(name_resolver, "RESOLVE_TIMEOUT_S", 10.0)
        assert await resolver() == ["10.0.0.1"]
        assert await resolver() == ["10.0.0.1"]
        assert asked == ["w", "w"]

    asyncio.run(scenario())


def test_a_question_that_outlives_its_loop_ends_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    may_answer = threading.Event()

    def hang(*_args: object, **_named: object) -> Any:
        may_answer.wait(10)
        return [entry(IPV4, "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(name_resolver, "RESOLVE_TIMEOUT_S", 0.01)
    with pytest.raises(ServingError):
        asyncio.run(_once("w"))
    (thread,) = [each for each in threading.enumerate() if each.name == "resolve w"]
    may_answer.set()
    thread.join(10)
    assert not thread.is_alive()


async def _once(host: str) -> Sequence[str]:
    return await NameResolver(host)()
