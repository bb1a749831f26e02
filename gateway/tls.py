"""TLS of the edges: an SSLConfig file turned into what each edge needs.

Beside the beginning of a request's line. Reading blocks on the file system; making contexts takes milliseconds.

Source: tensorflow_serving/config/ssl_config.proto, model_servers/server.cc (what the fields mean); Python's ssl module;
memfd_create(2), since OpenSSL reads certificates from files and the key is not to lie in one.
"""

import contextlib
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from tensorgate._native.tls_context import TlsContext
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.config.ssl_config_pb2 import SSLConfig
from tensorgate.protos.text_proto import read_text_proto


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """What an SSLConfig says; all of it has been tried. The texts are PEM."""

    key: bytes
    certificate: bytes
    """The server's, and those that lead from it to its authority."""
    custom_ca: bytes
    """Authorities that client certificates are checked against; empty: the system's."""
    client_verify: bool


def read_tls_config(path: str) -> TlsConfig:
    """The configuration in a text-format SSLConfig; blocks.

    Raises ServingError: INVALID_ARGUMENT where the text is no SSLConfig, or OpenSSL takes no key or certificate of it;
    the code of the file system's error where the file cannot be read.
    """
    message = read_text_proto(path, SSLConfig)
    config = TlsConfig(
        message.server_key.encode(), message.server_cert.encode(), message.custom_ca.encode(), message.client_verify
    )
    try:
        ssl_context(config)
    except (ssl.SSLError, ValueError) as error:
        text_of_error = f"SSL configuration '{path}' cannot be used: {error}"
        raise ServingError(Code.INVALID_ARGUMENT, text_of_error) from error
    return config


def native_context(config: TlsConfig) -> TlsContext:
    """For the native gRPC edge. Raises shared_library.LibraryError."""
    with _pem_file(config.certificate) as certificate, _pem_file(config.key) as key:
        if not config.custom_ca:
            return TlsContext(certificate, key, client_verify=config.client_verify)
        with _pem_file(config.custom_ca) as custom_ca:
            return TlsContext(certificate, key, custom_ca, client_verify=config.client_verify)


def ssl_context(config: TlsConfig) -> ssl.SSLContext:
    """For Python's servers of HTTP/1.1. Raises ssl.SSLError, ValueError for what OpenSSL does not take."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    with _pem_file(config.certificate) as certificate, _pem_file(config.key) as key:
        context.load_cert_chain(certificate, key)
    if config.client_verify:
        context.verify_mode = ssl.CERT_REQUIRED
        if config.custom_ca:
            context.load_verify_locations(cadata=config.custom_ca.decode())
        else:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    return context


class ChangingSslContext:
    """An SSLContext whose certificates can be replaced while a server uses it; from any thread.

    Whether clients have to show a certificate stays as it was in the beginning.
    """

    def __init__(self, config: TlsConfig) -> None:
        """Raises as ssl_context does."""
        self._client_verify = config.client_verify
        self._current = ssl_context(config)
        self.context = ssl_context(config)
        """What a server is to be given."""
        # Called in every handshake, whether the client names a server or not.
        self.context.sni_callback = self._choose

    def change(self, config: TlsConfig) -> None:
        """Holds for connections that come from now on. Raises ServingError FAILED_PRECONDITION, and ssl_context's."""
        if config.client_verify != self._client_verify:
            raise ServingError(
                Code.FAILED_PRECONDITION, "client_verify cannot be changed while the REST server runs; start it again"
            )
        self._current = ssl_context(config)

    def _choose(self, connection: ssl.SSLObject, _server_name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current


@contextlib.contextmanager
def _pem_file(text: bytes) -> Iterator[str]:
    """A path at which the text can be read while the context lasts; it is in memory only."""
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(text)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
