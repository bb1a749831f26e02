"""Control messages: what one side packs the other unpacks, and nothing malformed gets through."""

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgate.protos import control_messages
from tensorgate.protos.status_codes import Code


def test_a_request_comes_out_as_it_went_in() -> None:
    fields = {
        "handle": 7,
        "name": "m",
        "version": -1,
        "path": "/p",
        "platform": "tensorflow",
        "tags": ["serve"],
        "session_config": b"\x08\x01",
        "num_warmup_iterations": 1,
        "checks_method_names": True,
        "outputs_as_content": False,
        "prefer_tflite_model": True,
        "num_tflite_pools": 2,
        "golden_tolerance": 1e-4,
        "batching_mode": "off",
        "batching_parameters": b"",
        "model_settings": b"",
    }
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


INTEGERS = st.integers(-(2**63), 2**64 - 1)
# One strategy for each type that a field may have; surrogates are no UTF-8, so no path or name holds them.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = {
    int: INTEGERS,
    str: TEXTS,
    bytes: st.binary(max_size=20),
    list: st.lists(TEXTS, max_size=3),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    dict: st.dictionaries(TEXTS, INTEGERS, max_size=3),
}
# Whatever msgpack can carry, right or wrong.
ANYTHING = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats() | TEXTS | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.integers(0, 9), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("command", control_messages.REQUEST_FIELDS)
@given(data=st.data(), message_id=INTEGERS)
def test_every_command_comes_out_as_it_went_in(command: str, data: st.DataObject, message_id: int) -> None:
    fields = {name: data.draw(VALUES[kind], name) for name, kind in control_messages.REQUEST_FIELDS[command].items()}
    request = control_messages.unpack_request(control_messages.pack_request(message_id, command, **fields))
    assert (request.id, request.command, request.fields) == (message_id, command, fields)


@pytest.mark.parametrize("command", control_messages.REPLY_FIELDS)
@given(data=st.data(), message_id=INTEGERS)
def test_every_answer_comes_out_as_it_went_in(command: str, data: st.DataObject, message_id: int) -> None:
    fields = {name: data.draw(VALUES[kind], name) for name, kind in control_messages.REPLY_FIELDS[command].items()}
    reply = control_messages.unpack_reply(control_messages.pack_reply(message_id, Code.OK, "", **fields))
    control_messages.check_reply(command, reply)
    assert (reply.id, reply.code, reply.message, reply.fields) == (message_id, 0, "", fields)


@given(st.binary(max_size=60) | ANYTHING.map(msgpack.packb))
def test_whatever_arrives_is_a_message_or_a_value_error(message: bytes) -> None:
    for unpack in (control_messages.unpack_request, control_messages.unpack_reply):
        with contextlib.suppress(ValueError):
            assert isinstance(unpack(message), control_messages.ControlRequest | control_messages.ControlReply)


@given(st.fixed_dictionaries(dict.fromkeys(("id", "command", *control_messages.REQUEST_FIELDS["load"]), ANYTHING)))
def test_a_load_whose_fields_are_of_any_type_is_right_or_a_value_error(message: dict[str, object]) -> None:
    message["command"] = "load"
    try:
        request = control_messages.unpack_request(msgpack.packb(message))
    except ValueError:
        return
    for name, kind in control_messages.REQUEST_FIELDS["load"].items():
        assert type(request.fields[name]) is kind


def test_a_message_cut_short_or_with_bytes_left_over_is_refused() -> None:
    message = control_messages.pack_request(3, "unload", handle=7)
    for wrong in [*(message[:size] for size in range(len(message))), message + b"\x00"]:
        with pytest.raises(ValueError, match="not a msgpack message"):
            control_messages.unpack_request(wrong)


def test_a_reply_is_checked_against_its_command() -> None:
    good = control_messages.unpack_reply(
        control_messages.pack_reply(1, 0, "", in_flight=0, completed=1, rss_bytes=2, queues=[])
    )
    control_messages.check_reply("ping", good)
    with pytest.raises(ValueError, match="lacks the field 'pid'"):
        control_messages.check_reply("hello", good)
