"""Who may do what: the file of bearer tokens, and the question that the edges ask of each request.

Beside the beginning of a request's line. A table of tokens is made here and read by native code; the native gRPC edge
asks it by itself, grpcio's edge, REST and the console ask ``Access``.

Source: tensorgate's own; RFC 6750 (what a token may be made of, where it stands in a request).
"""

import logging
import os
import re
import stat
from collections.abc import Callable
from enum import IntFlag

from tensorgate._native import access_tokens
from tensorgate._native.access_tokens import AccessTokens
from tensorgate.protos.status_codes import Code, ServingError, of_os_error

logger = logging.getLogger("tensorgate.server")

MIN_TOKEN_BYTES = 16
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")


class Role(IntFlag):
    """What a token is for; each is there for itself, none includes another."""

    PREDICT = 1
    """Inference, and what clients ask of models: their signatures, versions and states."""
    ADMIN = 2
    """Reloading, adding and removing models."""
    METRICS = 4
    """The pages of metrics."""


# What needs a token, but any will do; and what needs none.
ANY_ROLE = Role.PREDICT | Role.ADMIN | Role.METRICS
OPEN = Role(0)

_ROLES = {role.name.lower().encode(): role for role in (Role.PREDICT, Role.ADMIN, Role.METRICS) if role.name}


def read_access_tokens(path: str) -> AccessTokens:
    """The tokens of a file: in a line roles, separated by commas, and a token; ``#`` begins a comment. Blocks.

    A file that everybody may read is named in the log. Raises ServingError: INVALID_ARGUMENT naming the line that is
    wrong, or for a file without any token; the code of the file system's error where it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            text = file.read()
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise of_os_error(error, path) from error
    if mode & stat.S_IROTH:
        logger.warning("the tokens in '%s' can be read by every user of this machine; chmod o-r it", path)
    try:
        return AccessTokens(parse_tokens(text))
    except ServingError as error:
        raise ServingError(error.code, f"Token file '{path}': {error.message}") from error


def parse_tokens(text: bytes) -> list[tuple[bytes, Role]]:
    """Tokens and their roles. Raises ServingError INVALID_ARGUMENT, without showing any token."""
    tokens: dict[bytes, Role] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = re.sub(rb"(^|\s)#.*", b"", line).split()
        if not words:
            continue
        if len(words) != 2:
            raise _wrong(number, "is not roles, a space and a token, such as: predict,metrics TOKEN")
        roles = OPEN
        for name in words[0].split(b","):
            if name not in _ROLES:
                # Not shown: somebody may have put the token first.
                raise _wrong(number, "names a role that there is not; there are predict, admin and metrics")
            roles |= _ROLES[name]
        token = words[1]
        if not (MIN_TOKEN_BYTES <= len(token) <= access_tokens.MAX_BYTES and _TOKEN.fullmatch(token)):
            raise _wrong(
                number,
                f"has a token that is not {MIN_TOKEN_BYTES} to {access_tokens.MAX_BYTES} letters, digits and -._~+/,"
                " with = at the end alone",
            )
        if token in tokens:
            raise _wrong(number, "has a token that is there already")
        tokens[token] = roles
    if not tokens:
        raise ServingError(Code.INVALID_ARGUMENT, "there is no token in it, so nobody could call")
    return list(tokens.items())


def _wrong(number: int, what: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, f"line {number} {what}")


class Access:
    """The tokens that count now; from any thread."""

    def __init__(self, tokens: AccessTokens) -> None:
        self.tokens = tokens
        self._watchers: list[Callable[[AccessTokens], None]] = []

    def watch(self, on_change: Callable[[AccessTokens], None]) -> None:
        """Has it called with the tokens that come after these, in the thread that changes them."""
        self._watchers.append(on_change)

    def change(self, tokens: AccessTokens) -> None:
        """Requests from now on are judged by these."""
        self.tokens = tokens
        for on_change in self._watchers:
            on_change(tokens)

    def refusal(self, header: bytes | None, needed: Role) -> ServingError | None:
        """Why a request with this `authorization` header, if any, may not do what needs one of these roles.

        None where it may. Takes the same time for every header that holds a token.
        """
        found = self.tokens.refusal(header, needed)
        return None if found is None else ServingError(Code(found[0]), found[1])
