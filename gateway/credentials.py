"""What the edges show and ask for: certificates of TLS and access tokens, read again when their files change.

Beside the beginning of a request's line. Made by the composition root; belongs to the edge loop's thread.
"""

import asyncio
import logging
from collections.abc import Callable

from tensorgate.gateway.access_tokens import Access, read_access_tokens
from tensorgate.gateway.options import ServerOptions
from tensorgate.gateway.tls import ChangingSslContext, TlsConfig, read_tls_config
from tensorgate.gateway.watched_file import watch_file

logger = logging.getLogger("tensorgate.server")


class Credentials:
    """Of one server, as its options name their files."""

    def __init__(self, options: ServerOptions) -> None:
        """Reads the files, and may block on them. Raises what ``read_tls_config`` and ``read_access_tokens`` do."""
        self._options = options
        self.grpc_tls = read_tls_config(options.ssl_config_file) if options.ssl_config_file else None
        """What gRPC begins with; None: it is in the clear."""
        rest_tls = read_tls_config(options.rest_api_ssl_config_file) if options.rest_api_ssl_config_file else None
        self._rest_tls = None if rest_tls is None else ChangingSslContext(rest_tls)
        self.rest_context = None if self._rest_tls is None else self._rest_tls.context
        """What REST's listener is to be given; None: it is in the clear."""
        self.access = Access(read_access_tokens(options.auth_token_file)) if options.auth_token_file else None
        """None: nobody is asked for a token."""
        self._watching: list[asyncio.Task[None]] = []

    def warn_of_open_tokens(self, grpc_port: int | None, rest_port: int | None) -> None:
        """Says in the log where others can read tokens; the ports are those that are listened on."""
        if self.access is None:
            return
        for name, port, tls in (("gRPC", grpc_port, self.grpc_tls), ("REST", rest_port, self._rest_tls)):
            if port is not None and tls is None:
                logger.warning("tokens that come over %s can be read on their way: there is no TLS there", name)

    def watch(self, set_grpc_tls: Callable[[TlsConfig], None]) -> None:
        """Has certificates and tokens replaced when their files change, until ``stop_watching``."""
        options = self._options
        watches = []
        if self.grpc_tls is not None:
            watches.append(watch_file(options.ssl_config_file, "certificates", read_tls_config, set_grpc_tls))
        if self._rest_tls is not None:
            path = options.rest_api_ssl_config_file
            watches.append(watch_file(path, "certificates", read_tls_config, self._rest_tls.change))
        if self.access is not None:
            watches.append(watch_file(options.auth_token_file, "tokens", read_access_tokens, self.access.change))
        loop = asyncio.get_running_loop()
        self._watching += [loop.create_task(watch, name="watch a file") for watch in watches]

    def stop_watching(self) -> None:
        for watching in self._watching:
            watching.cancel()
