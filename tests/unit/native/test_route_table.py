"""Routes as native threads read them: upstream's lookup rules and texts, and pins until the last one ends."""

import select
import string
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgate._native.route_table import PublishedVersion, Routes
from tensorgate.protos.status_codes import Code
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest


def request(name: str | None, version: int | None = None, label: str | None = None) -> bytes:
    message = PredictRequest()
    if name is not None:
        message.model_spec.SetInParent()
        message.model_spec.name = name
    if version is not None:
        message.model_spec.version.value = version
    if label is not None:
        message.model_spec.version_label = label
    return message.SerializeToString()


def routes(*versions: tuple[str, int], labels: dict[str, dict[str, int]] | None = None) -> Routes:
    models: dict[str, tuple[list[PublishedVersion], dict[str, int]]] = {}
    for name, version in versions:
        models.setdefault(name, ([], {}))[0].append(PublishedVersion(name, version))
    for name, each in (labels or {}).items():
        models.setdefault(name, ([], {}))[1].update(each)
    return Routes(models)


def found(table: Routes, wanted: bytes) -> tuple[str, int]:
    version, code, message = table.resolve(wanted)
    assert version is not None, message
    assert (code, message) == (Code.OK, b"")
    assert version.num_pins == 1
    version.unpin()
    return version.name, version.version


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_latest_is_the_largest_version_whatever_their_order() -> None:
    assert found(routes(("m", 2), ("m", 10), ("m", 9), ("other", 99)), request("m")) == ("m", 10)


def test_a_specific_version_is_found_and_version_zero_is_a_version() -> None:
    table = routes(("m", 0), ("m", 3))
    assert found(table, request("m", 0)) == ("m", 0)
    assert found(table, request("m", 3)) == ("m", 3)


def test_a_label_leads_to_its_version() -> None:
    table = routes(("m", 1), ("m", 2), labels={"m": {"stable": 1, "canary": 2, "größte": 2}})
    assert found(table, request("m", label="stable")) == ("m", 1)
    assert found(table, request("m", label="größte")) == ("m", 2)


@pytest.mark.parametrize(
    ("wanted", "code", "message"),
    [
        (request(None), Code.INVALID_ARGUMENT, "Missing ModelSpec"),
        (request(""), Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (request("", 1), Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (request("absent"), Code.NOT_FOUND, "Servable not found for request: Latest(absent)"),
        (request("absent", 7), Code.NOT_FOUND, "Servable not found for request: Specific(absent, 7)"),
        (request("m", 7), Code.NOT_FOUND, "Servable not found for request: Specific(m, 7)"),
        (request("m", -(2**63)), Code.NOT_FOUND, f"Servable not found for request: Specific(m, {-(2**63)})"),
        (request("m", label="canary"), Code.INVALID_ARGUMENT, "Unrecognized servable version label: canary"),
        (request("m", label=""), Code.INVALID_ARGUMENT, "Unrecognized servable version label: "),
        (request("absent", label="stable"), Code.INVALID_ARGUMENT, "Unrecognized servable version label: stable"),
        (request("m", label="gone"), Code.NOT_FOUND, "Servable not found for request: Specific(m, 5)"),
        (request("labels only"), Code.NOT_FOUND, "Servable not found for request: Latest(labels only)"),
    ],
)
def test_what_cannot_be_resolved_fails_with_upstreams_text(wanted: bytes, code: Code, message: str) -> None:
    table = routes(("m", 1), labels={"m": {"gone": 5}, "labels only": {"stable": 1}})
    assert table.resolve(wanted) == (None, code, message.encode())
    assert [version.num_pins for version in table.versions] == [0]


def test_an_empty_snapshot_finds_nothing() -> None:
    assert Routes({}).resolve(request("m"))[1] == Code.NOT_FOUND


@given(st.dictionaries(st.text(string.ascii_letters + "ü\0/", max_size=4), st.sets(st.integers(0, 9), min_size=1)))
def test_every_model_is_found_by_its_own_name(models: dict[str, set[int]]) -> None:
    table = routes(*((name, version) for name, versions in models.items() for version in versions))
    for name, versions in models.items():
        if name:
            assert found(table, request(name)) == (name, max(versions))
            assert found(table, request(name, min(versions))) == (name, min(versions))
        if f"{name}x" not in models:
            assert table.resolve(request(f"{name}x"))[1] == Code.NOT_FOUND


@given(st.binary(max_size=40))
def test_any_bytes_are_resolved_or_refused(data: bytes) -> None:
    table = routes(("m", 1), labels={"m": {"stable": 1}})
    try:
        version, code, _ = table.resolve(data)
    except ValueError:
        return
    assert (version is None) == (code != Code.OK)


def test_a_closed_version_takes_no_pin_and_tells_when_the_last_one_has_ended() -> None:
    version = PublishedVersion("m", 1)
    assert version.drained_fd == -1
    assert version.try_pin()
    assert version.try_pin()
    version.close()
    assert not version.try_pin()
    version.unpin()
    assert not readable(version.drained_fd)
    assert not version.is_drained
    version.unpin()
    assert readable(version.drained_fd)
    assert version.is_drained
    with pytest.raises(RuntimeError, match="not pinned"):
        version.unpin()


def test_an_unused_version_is_drained_as_soon_as_it_is_closed() -> None:
    version = PublishedVersion("m", 1)
    version.close()
    version.close()
    assert readable(version.drained_fd)


def test_pins_of_many_threads_add_up() -> None:
    table = routes(("m", 1))
    (version,) = table.versions

    def use() -> None:
        for _ in range(2000):
            assert table.resolve(request("m"))[0] is version
            version.unpin()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert version.num_pins == 0


def test_a_snapshot_that_cannot_be_made_leaves_nothing_behind() -> None:
    for models in ({"m": ([object()], {})}, {"m": ([], {"stable": "one"})}, {"m": ([], {1: 1})}, {"\ud800": ([], {})}):
        with pytest.raises((TypeError, AttributeError, UnicodeEncodeError)):
            Routes(models)  # type: ignore[arg-type]


def test_bad_replicas_leave_the_version_as_it_was() -> None:
    assert PublishedVersion("m", 1).replicas == []
    with pytest.raises(TypeError):
        PublishedVersion("m", "one")  # type: ignore[arg-type]
