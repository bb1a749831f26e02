from collections.abc import Sequence

from typing_extensions import Self, disjoint_base

MAX_BYTES: int

@disjoint_base
class AccessTokens:
    """Tokens and the roles of each, as bits; not to be changed once it is made. Any thread."""

    def __new__(cls, tokens: Sequence[tuple[bytes, int]]) -> Self:
        """Raises ValueError for a token that is empty or longer than MAX_BYTES."""

    def refusal(self, header: bytes | None, needed: int) -> tuple[int, str] | None:
        """Why a request may not do what needs one of the roles ``needed``; 0: everybody may. None: it may.

        ``header``: the value of its `authorization`, None without. A code (UNAUTHENTICATED, PERMISSION_DENIED), a text.
        """
