"""Why no connection came about, in words that say what to do: an authority that is not trusted, TLS on one side only.

Beside a tool's connections, after one has failed. It connects again, with Python's ssl, whose errors tell one failure
of TLS from another; grpcio's tell little. Each connection takes five seconds at most.

Source: RFC 8446 section 6 (alerts); X509_verify_cert_error_string(3) (the numbers).
"""

import contextlib
import socket
import ssl
from enum import IntEnum

from tensorgate.gateway.cli.access import Tls, checking_context

_TIMEOUT_S = 5.0


class _VerifyError(IntEnum):
    """OpenSSL's X509_V_ERR_ numbers that have an advice of their own."""

    CERT_NOT_YET_VALID = 9
    CERT_HAS_EXPIRED = 10
    DEPTH_ZERO_SELF_SIGNED_CERT = 18
    SELF_SIGNED_CERT_IN_CHAIN = 19
    UNABLE_TO_GET_ISSUER_CERT_LOCALLY = 20
    UNABLE_TO_VERIFY_LEAF_SIGNATURE = 21
    HOSTNAME_MISMATCH = 62
    IP_ADDRESS_MISMATCH = 64


def trouble_with(host: str, port: int, tls: Tls | None, *, speaks_grpc: bool) -> str:
    """A sentence about the server at this address; empty: TLS is not what keeps it from answering."""
    server = f"The server at {host}:{port}"
    if tls is None:
        if not _speaks_tls(host, port):
            return ""
        return f"{server} speaks TLS: add --tls, or --ca_cert=FILE where its authority is not one of the system's"
    try:
        plain = socket.create_connection((host, port), _TIMEOUT_S)
    except OSError:
        return ""
    if speaks_grpc:
        tls.context.set_alpn_protocols(["h2"])
    try:
        with plain, tls.context.wrap_socket(plain, server_hostname=tls.server_name or host) as connection:
            if speaks_grpc and connection.selected_alpn_protocol() != "h2":
                return f"{server} speaks TLS, but no gRPC: is it the port of REST?"
            # In TLS 1.3 the server judges the client's certificate after the client's last word; what it says, if only
            # by closing, comes now. Nothing comes of a server of HTTP/1.1 that waits for a request, which is well.
            with contextlib.suppress(TimeoutError):
                if not connection.recv(1):
                    raise ConnectionResetError
    except ssl.SSLCertVerificationError as error:
        return f"{server} shows a certificate that cannot be trusted: {_advice(host, port, tls, error)}"
    except OSError as error:
        reason = _reason(error)
        if "NO_APPLICATION_PROTOCOL" in reason:
            return f"{server} speaks TLS, but not {'gRPC' if speaks_grpc else 'HTTP/1.1'}: is it another port?"
        if "ALERT" not in reason and not _speaks_tls(host, port):
            return f"{server} answers no TLS handshake: if it speaks plain text, leave out --tls and what implies it"
        refusal = f"{server} refuses the TLS connection ({reason or 'without a word'})"
        if tls.client_cert is None:
            return f"{refusal}: if it asks for a client's certificate, add --client_cert=FILE and --client_key=FILE"
        return f"{refusal}: it may not trust the certificate of --client_cert"
    return ""


def _advice(host: str, port: int, tls: Tls, error: ssl.SSLCertVerificationError) -> str:
    match error.verify_code:
        case _VerifyError.HOSTNAME_MISMATCH | _VerifyError.IP_ADDRESS_MISMATCH:
            names = ", ".join(_names(host, port, tls)) or "another name"
            return f"it is for {names}, not for {tls.server_name or host}; name the one meant by --tls_server_name"
        case _VerifyError.CERT_HAS_EXPIRED | _VerifyError.CERT_NOT_YET_VALID:
            return f"{error.verify_message}; the server needs another one, or a clock is wrong"
        case (
            _VerifyError.DEPTH_ZERO_SELF_SIGNED_CERT
            | _VerifyError.SELF_SIGNED_CERT_IN_CHAIN
            | _VerifyError.UNABLE_TO_GET_ISSUER_CERT_LOCALLY
            | _VerifyError.UNABLE_TO_VERIFY_LEAF_SIGNATURE
        ):
            asked = "the system's authorities" if tls.authorities is None else "those of --ca_cert"
            return f"its authority is none of {asked} ({error.verify_message}); give the right one by --ca_cert=FILE"
    return error.verify_message


def _names(host: str, port: int, tls: Tls) -> list[str]:
    """In the server's certificate; none where it does not show it to a client without one."""
    context = checking_context(tls.authorities)
    context.check_hostname = False
    with contextlib.suppress(OSError), socket.create_connection((host, port), _TIMEOUT_S) as plain:
        with context.wrap_socket(plain, server_hostname=tls.server_name or host) as connection:
            certificate = connection.getpeercert() or {}
        return [str(entry[1]) for entry in certificate.get("subjectAltName", ())]
    return []


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing is said to it but hello.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with socket.create_connection((host, port), _TIMEOUT_S) as plain, context.wrap_socket(plain):
            return True
    except OSError as error:
        return "ALERT" in _reason(error)


def _reason(error: OSError) -> str:
    """OpenSSL's name of what went wrong; an alert is the server's own word. Empty for other errors."""
    return error.reason or "" if isinstance(error, ssl.SSLError) else ""
