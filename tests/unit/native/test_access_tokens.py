"""Bearer tokens against a dictionary, and anything that a client could send as its header."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tensorgate._native.access_tokens import MAX_BYTES, AccessTokens
from tensorgate.protos.status_codes import Code

READ, WRITE = 1, 2
TOKENS = {b"a" * 16: READ, b"a" * 17: WRITE, b"b" * MAX_BYTES: READ | WRITE, b"with\0nul": READ}
TABLE = AccessTokens(list(TOKENS.items()))


def expected(header: bytes | None, needed: int) -> int:
    """The code by the book."""
    found = None if header is None else re.fullmatch(rb"(?i:bearer) +([^ ].*)", header, re.DOTALL)
    roles = TOKENS.get(found[1], 0) if found else 0
    if needed == 0 or roles & needed:
        return Code.OK
    return Code.PERMISSION_DENIED if roles else Code.UNAUTHENTICATED


def code(header: bytes | None, needed: int) -> int:
    found = TABLE.refusal(header, needed)
    return Code.OK if found is None else found[0]


near = st.sampled_from(sorted(TOKENS)).flatmap(
    lambda token: st.sampled_from([token, token[:-1], token + b"a", token + b"\0", token[1:], token.upper()])
)
schemes = st.sampled_from([b"Bearer ", b"bearer ", b"BEARER   ", b"Bearer", b"Bearer\0", b"Basic ", b"earer ", b""])


@given(st.one_of(st.none(), st.binary(max_size=300), st.tuples(schemes, near).map(b"".join)), st.integers(0, 3))
@example(b"Bearer " + b"b" * (MAX_BYTES + 1), READ)
@example(b"Bearer ", READ)
@example(b"", READ)
def test_a_header_is_worth_the_roles_of_exactly_the_token_that_it_holds(header: bytes | None, needed: int) -> None:
    assert code(header, needed) == expected(header, needed)


def test_a_refusal_says_what_is_missing() -> None:
    texts = [TABLE.refusal(header, WRITE) for header in (None, b"Bearer x", b"Bearer " + b"a" * 16)]
    assert texts == [
        (Code.UNAUTHENTICATED, "A token is needed: send the header 'authorization: Bearer TOKEN'."),
        (Code.UNAUTHENTICATED, "The 'authorization' header holds no bearer token that this server knows."),
        (Code.PERMISSION_DENIED, "The token is for other things than this: its roles do not permit it."),
    ]


@pytest.mark.parametrize("token", [b"", b"x" * (MAX_BYTES + 1)])
def test_a_token_of_an_impossible_size_is_refused(token: bytes) -> None:
    with pytest.raises(ValueError, match="1 to 256 bytes"):
        AccessTokens([(token, READ)])


def test_without_any_token_nothing_is_permitted_that_needs_one() -> None:
    assert AccessTokens([]).refusal(b"Bearer x", READ) is not None
    assert AccessTokens([]).refusal(None, 0) is None
