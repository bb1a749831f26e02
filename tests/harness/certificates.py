"""Certificates for tests of TLS, and the servers' files that name them."""

import dataclasses
import datetime
import os
import pathlib

import trustme
from google.protobuf import text_format

from tensorgate.protos.tensorflow_serving.config.ssl_config_pb2 import SSLConfig


@dataclasses.dataclass(frozen=True)
class Shown:
    """A certificate, with its chain and its key; PEM."""

    chain: bytes
    key: bytes


def issue(ca: trustme.CA, *names: str, not_after: datetime.datetime | None = None) -> Shown:
    made = ca.issue_cert(*names, not_after=not_after)
    return Shown(b"".join(blob.bytes() for blob in made.cert_chain_pems), made.private_key_pem.bytes())


def write_config(path: pathlib.Path, server: Shown, client_ca: trustme.CA | None = None) -> None:
    """Replaced whole, as an operator should."""
    config = SSLConfig(server_key=server.key.decode(), server_cert=server.chain.decode())
    if client_ca is not None:
        config.custom_ca = client_ca.cert_pem.bytes().decode()
        config.client_verify = True
    new = path.with_suffix(".new")
    new.write_text(text_format.MessageToString(config), encoding="utf-8")
    os.replace(new, path)
