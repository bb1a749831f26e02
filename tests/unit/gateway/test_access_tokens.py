"""The file of tokens: what it says, and what is wrong with one, in words that show no token."""

import logging
import os
import pathlib

import pytest

from tensorgate.gateway.access_tokens import OPEN, Access, Role, parse_tokens, read_access_tokens
from tensorgate.protos.status_codes import Code, ServingError

ONE = "0123456789abcdef"
OTHER = "AZaz09-._~+/AZaz=="


def write(folder: pathlib.Path, text: str, mode: int = 0o600) -> str:
    path = folder / "tokens"
    path.write_text(text, encoding="utf-8")
    os.chmod(path, mode)
    return str(path)


def bearer(token: str) -> bytes:
    return f"Bearer {token}".encode()


def test_a_line_is_roles_and_a_token_and_comments_are_passed_over() -> None:
    text = f"# of the batch jobs\n\n  predict \t{ONE}  # since May\nadmin,metrics,predict {OTHER}\r\n"
    assert parse_tokens(text.encode()) == [
        (ONE.encode(), Role.PREDICT),
        (OTHER.encode(), Role.ADMIN | Role.METRICS | Role.PREDICT),
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "there is no token in it, so nobody could call"),
        ("# nothing\n", "there is no token in it"),
        (ONE, "line 1 is not roles, a space and a token"),
        (f"predict {ONE} {OTHER}", "line 1 is not roles, a space and a token"),
        (f"\npredicts {ONE}", "line 2 names a role that there is not; there are predict, admin and metrics"),
        (f"predict, {ONE}", "line 1 names a role that there is not"),
        (f"{ONE} predict", "line 1 names a role that there is not"),
        (f"Predict {ONE}", "line 1 names a role that there is not"),
        ("predict 0123456789abcde", "line 1 has a token that is not 16 to 256 letters"),
        (f"predict {'x' * 257}", "line 1 has a token that is not 16 to 256 letters"),
        ("predict 0123456789=abcdef", "line 1 has a token that is not 16 to 256 letters"),
        ("predict 0123456789äbcdef", "line 1 has a token that is not 16 to 256 letters"),
        ("predict 01234567#9abcdef", "line 1 has a token that is not 16 to 256 letters"),
        (f"predict {ONE}\nadmin {ONE}", "line 2 has a token that is there already"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_without_the_token(
    tmp_path: pathlib.Path, text: str, what: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ServingError) as raised:
        read_access_tokens(path)
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert raised.value.message.startswith(f"Token file '{path}': {what}")
    assert ONE not in raised.value.message


def test_a_file_that_is_not_there_has_the_file_systems_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ServingError) as raised:
        read_access_tokens(str(tmp_path / "none"))
    assert raised.value.code is Code.NOT_FOUND


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 0), (0o644, 1)])
def test_a_file_that_everybody_may_read_is_named_in_the_log(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, mode: int, warnings: int
) -> None:
    path = write(tmp_path, f"predict {ONE}", mode)
    with caplog.at_level(logging.WARNING, "tensorgate.server"):
        read_access_tokens(path)
    assert [path in record.getMessage() for record in caplog.records] == [True] * warnings
    assert ONE not in caplog.text


def test_requests_are_judged_by_the_tokens_of_now_and_watchers_hear_of_new_ones(tmp_path: pathlib.Path) -> None:
    access = Access(read_access_tokens(write(tmp_path, f"predict {ONE}")))
    heard = []
    access.watch(heard.append)
    assert access.refusal(bearer(ONE), Role.PREDICT) is None
    refusal = access.refusal(bearer(ONE), Role.ADMIN)
    assert refusal is not None
    assert refusal.code is Code.PERMISSION_DENIED
    access.change(read_access_tokens(write(tmp_path, f"admin {OTHER}")))
    assert heard == [access.tokens]
    refusal = access.refusal(bearer(ONE), Role.PREDICT)
    assert refusal is not None
    assert refusal.code is Code.UNAUTHENTICATED
    assert access.refusal(bearer(OTHER), Role.ADMIN) is None
    assert access.refusal(None, OPEN) is None
