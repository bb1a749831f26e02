"""Addresses that are held for the gRPC edge: what is noticed, and what others can do meanwhile."""

import contextlib
import pathlib
import socket
from collections.abc import Iterator

import pytest

from tensorgate.gateway.rpc.reserved_addresses import reserved_addresses
from tensorgate.protos.status_codes import Code, ServingError

HOST = "127.0.0.1"


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def unix_listener(path: pathlib.Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


def refusal_of(port: int, socket_path: str) -> str:
    with pytest.raises(ServingError) as caught, reserved_addresses(port, socket_path, host=HOST):
        pass
    assert caught.value.code is Code.UNAVAILABLE
    return caught.value.message


def test_a_port_that_somebody_listens_on_is_named() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        expected = f"gRPC cannot listen on {HOST}:{port}: Address already in use; choose another --port"
        assert refusal_of(port, "") == expected


def test_meanwhile_clients_are_refused_and_the_edge_can_listen(free_port: int) -> None:
    with reserved_addresses(free_port, "", host=HOST):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, free_port), timeout=10)
        with socket.create_server((HOST, free_port)) as edge:
            edge.settimeout(10)
            with socket.create_connection((HOST, free_port), timeout=10):
                edge.accept()[0].close()


def test_a_port_that_servers_share_is_not_held() -> None:
    with socket.create_server((HOST, 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        with reserved_addresses(port, "", host=HOST, shares_port=True):
            pass


def test_without_addresses_nothing_is_held() -> None:
    with reserved_addresses(0, "", host=HOST):
        pass


def test_a_socket_that_another_server_answers_on_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "grpc.sock"
    with unix_listener(path):
        expected = f"gRPC cannot listen on unix:{path}: another server listens there; choose another --grpc_socket_path"
        assert refusal_of(0, str(path)) == expected


def test_a_socket_that_a_server_left_behind_is_no_trouble(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "grpc.sock"
    with unix_listener(path):
        pass
    assert path.exists()
    with reserved_addresses(0, str(path), host=HOST):
        pass


def test_a_socket_path_that_cannot_be_is_named(tmp_path: pathlib.Path) -> None:
    assert "its folder does not exist" in refusal_of(0, str(tmp_path / "none" / "grpc.sock"))
    assert "more than 107 bytes" in refusal_of(0, "/tmp/" + "x" * 110)
    (tmp_path / "file").touch()
    assert "another --grpc_socket_path" in refusal_of(0, str(tmp_path / "file" / "grpc.sock"))
