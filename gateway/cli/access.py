"""How a server is reached: the token that it is shown, and what TLS takes. From the options of a tool's command line.

On the client's side of both edges. Files are read, and tried, before anything connects.

Source: Python's ssl module; grpc.ssl_channel_credentials.
"""

import os
import pathlib
import ssl
from dataclasses import dataclass

import grpc

from tensorgate.protos.status_codes import Code, ServingError, of_os_error


@dataclass(frozen=True, slots=True)
class Tls:
    """What a TLS connection takes; the bytes are PEM."""

    context: ssl.SSLContext
    """For http.client: checks the server's certificate, and shows the client's."""
    authorities: bytes | None = None
    """That the server's certificate is checked against; None: the system's."""
    client_cert: bytes | None = None
    client_key: bytes | None = None
    server_name: str = ""
    """In the server's certificate, where it is not the name or address that it is reached by."""

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """The same for grpcio, which has authorities of its own and would not ask the system's."""
        authorities = system_authorities() if self.authorities is None else self.authorities
        return grpc.ssl_channel_credentials(authorities, self.client_key, self.client_cert)


@dataclass(frozen=True, slots=True)
class Access:
    """How a server is reached. ``token``: empty for none; ``tls``: None for connections in the clear."""

    token: str = ""
    tls: Tls | None = None


def read_token(path: str | None) -> str:
    """The token that a file holds, without one that of the environment; empty: none.

    Raises ServingError: INVALID_ARGUMENT for a file with more in it, the file system's where it cannot be read.
    """
    if not path:
        return os.environ.get("TENSORGATE_TOKEN", "").strip()
    words = _read(path).decode("ascii", errors="replace").split()
    if len(words) != 1:
        raise ServingError(Code.INVALID_ARGUMENT, f"{path} is to hold one token and nothing else")
    return words[0]


def read_tls(ca_cert: str = "", client_cert: str = "", client_key: str = "", server_name: str = "") -> Tls:
    """Reads the PEM files, where paths are given: ``client_cert`` and ``client_key`` both or neither.

    Raises ServingError: INVALID_ARGUMENT for a file that is not what it should be, the file system's where it cannot be
    read.
    """
    authorities = _read(ca_cert) if ca_cert else None
    try:
        context = checking_context(authorities)
    except (ssl.SSLError, ValueError) as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"{ca_cert} has no certificate that can be used: {error}") from error
    if not client_cert:
        return Tls(context, authorities, server_name=server_name)

    def refuse_passphrase() -> str:
        # OpenSSL would ask at the terminal, and grpcio knows no passphrases.
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"{client_key} is encrypted; 'openssl pkey -in {client_key}' writes a key without a passphrase",
        )

    try:
        context.load_cert_chain(client_cert, client_key, refuse_passphrase)
    except ssl.SSLError as error:
        problem = f"{client_cert} and {client_key} are no certificate and its key, in PEM: {error.reason or error}"
        raise ServingError(Code.INVALID_ARGUMENT, problem) from error
    return Tls(context, authorities, _read(client_cert), _read(client_key), server_name)


def checking_context(authorities: bytes | None) -> ssl.SSLContext:
    """A client's context that checks the server's certificate and name; None: against the system's authorities.

    Raises ssl.SSLError or ValueError for authorities that are none.
    """
    if authorities is None:
        context = ssl.create_default_context()
    elif not authorities.strip():
        raise ValueError("it is empty")
    else:
        # PEM may have comments in any language around its certificates.
        context = ssl.create_default_context(cadata=authorities.decode("ascii", errors="ignore"))
    # On since Python 3.13, it refuses certificates made by hand that lack an identifier; grpcio and curl take them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def system_authorities() -> bytes | None:
    """Where OpenSSL looks, $SSL_CERT_FILE and $SSL_CERT_DIR included; None: there are none. Blocks on files."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return _read(paths.cafile)
    # The names that OpenSSL finds certificates by in a folder.
    files = sorted(pathlib.Path(paths.capath).glob("*.[0-9]")) if paths.capath else []
    return b"\n".join(_read(str(file)) for file in files) or None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise of_os_error(error, path) from error
