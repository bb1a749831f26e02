"""Control messages: what one side packs the other unpacks, and nothing malformed gets through."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgate.protos import control_messages
from tensorgate.protos.status_codes import Code


def test_a_request_comes_out_as_it_went_in() -> None:
    fields = {"handle": 7, "name": "m", "version": -1, "path": "/p", "tags": ["serve"], "session_config": b"\x08\x01"}
    request = control_messages.unpack_request(control_messages.pack_request(3, "load", **fields))
    assert (request.id, request.command, request.fields) == (3, "load", fields)


def test_a_reply_comes_out_as_it_went_in() -> None:
    reply = control_messages.unpack_reply(control_messages.pack_reply(3, Code.NOT_FOUND, "nö", more=1))
    assert (reply.id, reply.code, reply.message, reply.fields) == (3, 5, "nö", {"more": 1})


def test_an_unknown_command_is_left_to_the_reader_and_unknown_fields_are_kept() -> None:
    assert control_messages.unpack_request(control_messages.pack_request(1, "dance", tempo=3)).fields == {"tempo": 3}
    assert control_messages.unpack_request(control_messages.pack_request(1, "ping", new=3)).fields == {"new": 3}


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"command": "ping"}, "lacks the field 'id'"),
        ({"id": "1", "command": "ping"}, "'id' is of type str"),
        ({"id": True, "command": "ping"}, "'id' is of type bool"),
        ({"id": 1, "command": 2}, "'command' is of type int"),
        ({"id": 1, "command": "unload"}, "lacks the field 'handle'"),
        ({"id": 1, "command": "unload", "handle": None}, "'handle' is of type NoneType"),
        (
            {"id": 1, "command": "load", "handle": 1, "name": "m", "version": 1, "path": "", "tags": [1]},
            "'tags' is not a list of strings",
        ),
        ([1, 2], "not a map"),
        ({1: 2}, "not a msgpack message"),
    ],
)
def test_a_malformed_request_is_refused_with_the_field_named(message: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        control_messages.unpack_request(msgpack.packb(message))


@given(st.binary(max_size=60))
def test_garbage_is_refused_with_value_error_only(garbage: bytes) -> None:
    for unpack in (control_messages.unpack_request, control_messages.unpack_reply):
        with pytest.raises(ValueError):  # noqa: PT011 - any of its texts
            unpack(garbage + b"\xc1")  # 0xc1 is never valid msgpack


def test_a_reply_is_checked_against_its_command() -> None:
    good = control_messages.unpack_reply(control_messages.pack_reply(1, 0, "", in_flight=0, completed=1, rss_bytes=2))
    control_messages.check_reply("ping", good)
    with pytest.raises(ValueError, match="lacks the field 'pid'"):
        control_messages.check_reply("hello", good)
