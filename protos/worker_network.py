"""Workers on the network: their addresses, names that stand for several of them, and the key shared with the gateway.

Both processes import this module. A worker has three ports in a row: commands, requests, cancels. On all of them speaks
ZeroMQ, with CURVE where there is a key: one pair of keys for both sides, so that each knows that the other has it.

Source: CurveZMQ (rfc.zeromq.org/spec/26); zmq_curve_keypair(3).
"""

import ipaddress
import re
from dataclasses import dataclass, field

import zmq

from tensorgate.protos.status_codes import Code, ServingError, of_os_error

_ADDRESS = re.compile(r"tcp://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_SERVICE = re.compile(r"dns://([A-Za-z0-9._-]+):([0-9]{1,5})")
_MAX_PORT = 65535 - 2


@dataclass(frozen=True, slots=True)
class WorkerKey:
    """A pair of CURVE keys, as text."""

    public: bytes = field(repr=False)
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    """Where a worker listens; each a ZeroMQ endpoint."""

    control: str
    data: str
    cancel: str
    is_loopback: bool
    """Only this machine reaches it."""
    is_ipv6: bool = False
    """Its sockets have to be told."""


@dataclass(frozen=True, slots=True)
class WorkerService:
    """A name that stands for workers: each address that it resolves to is one, at the port and the two behind it."""

    host: str
    port: int

    @property
    def text(self) -> str:
        """As flags and settings write it."""
        return f"dns://{self.host}:{self.port}"


def parse_address(text: str) -> WorkerAddress:
    """The endpoints of ``tcp://HOST:PORT``, which names the first of three. Raises ServingError INVALID_ARGUMENT."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= _MAX_PORT or not _is_host(found[1]):
        raise ServingError(
            Code.INVALID_ARGUMENT, f"a worker's address is tcp://HOST:PORT, PORT 1 to {_MAX_PORT}; got {text!r}"
        )
    host, port = found[1], int(found[2])
    control, data, cancel = (f"tcp://{host}:{each}" for each in range(port, port + 3))
    return WorkerAddress(control, data, cancel, _is_loopback(host.strip("[]")), host.startswith("["))


def parse_service(text: str) -> WorkerService:
    """The parts of ``dns://NAME:PORT``. Raises ServingError INVALID_ARGUMENT."""
    found = _SERVICE.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= _MAX_PORT:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"a name of workers is dns://NAME:PORT, PORT 1 to {_MAX_PORT}; got {text!r}"
        )
    return WorkerService(found[1], int(found[2]))


def address_of(host: str, port: int) -> str:
    """``tcp://HOST:PORT`` of an IP address."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def read_worker_key(path: str) -> WorkerKey:
    """The key in a file that holds nothing else; blocks.

    Raises ServingError: INVALID_ARGUMENT for what is no key, the file system's code for a file that cannot be read.
    """
    try:
        with open(path, "rb") as file:
            secret = file.read().strip()
    except OSError as error:
        raise of_os_error(error, path) from error
    try:
        return WorkerKey(zmq.curve_public(secret), secret)
    except (zmq.ZMQError, ValueError) as error:
        text = f"'{path}' holds no key of workers; `tensorgate worker-key` makes one"
        raise ServingError(Code.INVALID_ARGUMENT, text) from error


def new_worker_key() -> str:
    """A secret key, as a file holds it."""
    _, secret = zmq.curve_keypair()
    return str(secret.decode("ascii"))


def check_key(addresses: list[WorkerAddress | WorkerService], key: WorkerKey | None) -> None:
    """Raises ServingError INVALID_ARGUMENT for an address that others reach, or a name, without a key."""
    for address in addresses:
        if key is not None:
            continue
        if isinstance(address, WorkerService):
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"whoever answers for {address.text} would read requests: --worker_key_file is needed for a name",
            )
        if not address.is_loopback:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"whoever reaches {address.control} could have models loaded and read requests:"
                " --worker_key_file is needed for an address beyond this machine's own",
            )


def _is_host(host: str) -> bool:
    """Whether what stands in brackets, if anything does, is an IPv6 address."""
    if not host.startswith("["):
        return True
    try:
        return ipaddress.ip_address(host[1:-1]).version == 6
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
