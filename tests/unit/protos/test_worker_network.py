"""Addresses and keys of workers on the network."""

import pathlib

import pytest

from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.worker_network import address_of, check_key, new_worker_key, parse_address, read_worker_key


@pytest.mark.parametrize(("host", "is_ipv6"), [("10.0.0.7", False), ("worker-0", False), ("[fd00::7]", True)])
def test_an_address_is_the_first_of_three_ports(host: str, is_ipv6: bool) -> None:
    address = parse_address(f"tcp://{host}:9900")
    assert (address.control, address.data, address.cancel) == tuple(f"tcp://{host}:990{each}" for each in range(3))
    assert address.is_ipv6 is is_ipv6


@pytest.mark.parametrize("host", ["10.0.0.7", "fd00::7"])
def test_the_address_of_a_host_is_one(host: str) -> None:
    assert host in parse_address(address_of(host, 9900)).control


@pytest.mark.parametrize(
    ("text", "is_loopback"),
    [
        ("tcp://127.0.0.1:1", True),
        ("tcp://127.8.9.1:1", True),
        ("tcp://localhost:65533", True),
        ("tcp://[::1]:1", True),
        ("tcp://[::]:1", False),
        ("tcp://0.0.0.0:1", False),
        ("tcp://localhost.example:1", False),
        ("tcp://worker-0:1", False),
    ],
)
def test_an_address_of_this_machine_alone_needs_no_key(text: str, is_loopback: bool, tmp_path: pathlib.Path) -> None:
    address = parse_address(text)
    assert address.is_loopback is is_loopback
    (tmp_path / "key").write_text(new_worker_key(), encoding="ascii")
    check_key([address], read_worker_key(str(tmp_path / "key")))
    if is_loopback:
        check_key([address], None)
    else:
        with pytest.raises(ServingError, match="--worker_key_file is needed"):
            check_key([parse_address("tcp://localhost:1"), address], None)


@pytest.mark.parametrize(
    "text",
    ["", "tcp://", "tcp://h", "tcp://h:", "tcp://h:0", "tcp://h:65534", "tcp://h:9x", "ipc:///x", "h:1", "tcp://*:1",
     "tcp://[::x]:1", "tcp://[1.2.3.4]:1", "tcp://[]:1", "tcp://::1:1", "tcp://[fd00::7]",
     "tcp://h:1/", "tcp://h;x:1", " tcp://h:1", "tcp://h:1\n"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ServingError, match="a worker's address is tcp://HOST:PORT") as raised:
        parse_address(text)
    assert raised.value.code is Code.INVALID_ARGUMENT


def test_a_key_is_read_with_its_public_half_and_shown_by_nothing(tmp_path: pathlib.Path) -> None:
    text = new_worker_key()
    (tmp_path / "key").write_text(f"\n{text}\n", encoding="ascii")
    key = read_worker_key(str(tmp_path / "key"))
    assert key.secret == text.encode()
    assert len(key.public) == 40
    assert text not in repr(key)
    assert new_worker_key() != text


@pytest.mark.parametrize("text", [b"", b"x", b"\xff" * 40, b"a b", b"0" * 39])
def test_what_is_no_key_is_refused(tmp_path: pathlib.Path, text: bytes) -> None:
    (tmp_path / "key").write_bytes(text)
    with pytest.raises(ServingError, match="holds no key of workers"):
        read_worker_key(str(tmp_path / "key"))


def test_a_key_file_that_is_not_there_has_the_file_systems_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ServingError) as raised:
        read_worker_key(str(tmp_path / "none"))
    assert raised.value.code is Code.NOT_FOUND
