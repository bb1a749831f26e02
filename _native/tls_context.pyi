from typing_extensions import Self, disjoint_base

@disjoint_base
class TlsContext:
    """What a server's TLS connections are made of; not to be changed once it is made. Any thread."""

    def __new__(cls, certificate_path: str, key_path: str, ca_path: str | None = None, *, client_verify: bool) -> Self:
        """Reads PEM files: the server's certificate with what leads to its authority, its key, and the authorities
        that client certificates are checked against (None: the system's), which ``client_verify`` makes clients show.

        Raises ValueError, with OpenSSL's text, for files that cannot be used; shared_library.LibraryError.
        """
