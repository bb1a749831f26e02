"""The route table: upstream's lookup rules and texts, and pins across threads."""

import asyncio
import sys
import threading
from collections.abc import Callable, Sequence

import pytest

from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.dispatch.route_table import RouteTable
from tensorgate.gateway.dispatch.worker import Replica
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap


class Hosted:
    """A Hosting without a worker."""

    def __init__(self, signature_def_map: bytes = b"") -> None:
        self.signature_def_map = signature_def_map
        self.replicas: Sequence[Replica] = ()
        self.on_change: Callable[[], None] | None = None

    def watch_replicas(self, on_change: Callable[[], None] | None) -> None:
        self.on_change = on_change


def spec(name: str, version: int | None = None, label: str | None = None) -> ModelSpec:
    return ModelSpec(name, version, label, "")


def table(*versions: tuple[str, int]) -> RouteTable:
    made = RouteTable()
    for name, version in versions:
        made.publish(ServableId(name, version), Hosted())
    return made


def test_latest_is_the_largest_published_version_whatever_the_order_of_publishing() -> None:
    routes = table(("m", 2), ("m", 10), ("m", 9), ("other", 99))
    assert routes.resolve(spec("m")).servable_id == ServableId("m", 10)
    assert list(routes.snapshot.versions["m"]) == [10, 9, 2]


def test_a_specific_version_is_found_and_version_zero_is_a_version() -> None:
    routes = table(("m", 0), ("m", 3))
    assert routes.resolve(spec("m", 0)).servable_id == ServableId("m", 0)
    assert routes.resolve(spec("m", 3)).servable_id == ServableId("m", 3)


def test_a_label_leads_to_its_version() -> None:
    routes = table(("m", 1), ("m", 2))
    routes.set_labels({"m": {"stable": 1}})
    assert routes.resolve(spec("m", label="stable")).servable_id == ServableId("m", 1)


@pytest.mark.parametrize(
    ("wanted", "code", "message"),
    [
        (spec(""), Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (spec("", 1), Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (spec("absent"), Code.NOT_FOUND, "Servable not found for request: Latest(absent)"),
        (spec("absent", 7), Code.NOT_FOUND, "Servable not found for request: Specific(absent, 7)"),
        (spec("m", 7), Code.NOT_FOUND, "Servable not found for request: Specific(m, 7)"),
        (spec("m", label="canary"), Code.INVALID_ARGUMENT, "Unrecognized servable version label: canary"),
        (spec("m", label=""), Code.INVALID_ARGUMENT, "Unrecognized servable version label: "),
        (spec("absent", label="stable"), Code.INVALID_ARGUMENT, "Unrecognized servable version label: stable"),
        (spec("m", label="gone"), Code.NOT_FOUND, "Servable not found for request: Specific(m, 5)"),
    ],
)
def test_what_cannot_be_resolved_fails_with_upstreams_text(wanted: ModelSpec, code: Code, message: str) -> None:
    routes = table(("m", 1))
    routes.set_labels({"m": {"gone": 5}})
    with pytest.raises(ServingError) as caught:
        routes.resolve(wanted)
    assert caught.value == ServingError(code, message)


def test_publishing_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="published already"):
        table(("m", 1), ("m", 1))


def test_a_snapshot_does_not_change_when_the_table_does() -> None:
    routes = table(("m", 1))
    before = routes.snapshot
    routes.publish(ServableId("m", 2), Hosted())
    assert list(before.versions["m"]) == [1]


def test_withdrawing_waits_for_the_last_pin_and_is_unreachable_meanwhile() -> None:
    async def scenario() -> None:
        routes = table(("m", 1), ("m", 2))
        first, second = routes.resolve(spec("m")), routes.resolve(spec("m", 2))
        withdrawn = asyncio.ensure_future(routes.withdraw(ServableId("m", 2)))
        await asyncio.sleep(0)
        assert routes.resolve(spec("m")).servable_id.version == 1
        first.release()
        await asyncio.sleep(0)
        assert not withdrawn.done()
        second.release()
        await asyncio.wait_for(withdrawn, 1)

    asyncio.run(scenario())


def test_withdrawing_an_unused_version_returns_at_once_and_its_name_may_come_back() -> None:
    async def scenario() -> None:
        routes = table(("m", 1))
        await asyncio.wait_for(routes.withdraw(ServableId("m", 1)), 1)
        with pytest.raises(ServingError, match="Latest"):
            routes.resolve(spec("m"))
        with pytest.raises(ValueError, match="not published"):
            await routes.withdraw(ServableId("m", 1))
        routes.publish(ServableId("m", 1), Hosted())
        assert routes.resolve(spec("m")).servable_id.version == 1

    asyncio.run(scenario())


def test_a_version_withdrawn_between_lookup_and_pin_is_looked_up_again() -> None:
    routes = table(("m", 1), ("m", 2))
    # The reader holds a snapshot that still has version 2, which closes before it can pin.
    routes.snapshot.versions["m"][2].close()

    class ReadsOldSnapshotFirst(RouteTable):
        num_reads = 0

        def _look_up(self, model_spec: ModelSpec) -> object:  # type: ignore[override]
            self.num_reads += 1
            if self.num_reads > 1:
                return routes.snapshot.versions["m"][1]
            return super()._look_up(model_spec)

    racing = ReadsOldSnapshotFirst()
    racing._snapshot = routes.snapshot
    assert racing.resolve(spec("m")).servable_id.version == 1
    assert racing.num_reads == 2


def test_the_last_pin_may_end_on_another_thread() -> None:
    async def scenario() -> None:
        routes = table(("m", 1))
        pin = routes.resolve(spec("m"))
        withdrawn = asyncio.ensure_future(routes.withdraw(ServableId("m", 1)))
        await asyncio.sleep(0)
        thread = threading.Thread(target=pin.release)
        thread.start()
        await asyncio.wait_for(withdrawn, 1)
        thread.join()

    asyncio.run(scenario())


def test_readers_on_threads_always_find_a_version_while_versions_swap() -> None:
    async def scenario() -> None:
        routes = table(("m", 0))
        ended = threading.Event()
        problems: list[Exception] = []

        def read() -> None:
            try:
                while not ended.is_set():
                    routes.resolve(spec("m")).release()
            except (ServingError, RuntimeError) as error:
                problems.append(error)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        for version in range(100):
            routes.publish(ServableId("m", version + 1), Hosted())
            await asyncio.wait_for(routes.withdraw(ServableId("m", version)), 10)
        ended.set()
        for reader in readers:
            reader.join()
        assert problems == []
        assert routes.snapshot.versions["m"][100].num_pins == 0

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        asyncio.run(scenario())
    finally:
        sys.setswitchinterval(interval)


def test_signatures_are_parsed_once_per_version() -> None:
    signatures = SignatureDefMap()
    signatures.signature_def["serving_default"].method_name = "tensorflow/serving/predict"
    routes = RouteTable()
    routes.publish(ServableId("m", 1), Hosted(signatures.SerializeToString()))
    one, other = routes.resolve(spec("m")), routes.resolve(spec("m"))
    assert one.signatures is other.signatures
    assert one.signatures.signature_def["serving_default"].method_name == "tensorflow/serving/predict"
    assert one.signature_def_map == signatures.SerializeToString()


def test_a_pin_ends_once() -> None:
    routes = table(("m", 1))
    pin = routes.resolve(spec("m"))
    pin.release()
    with pytest.raises(RuntimeError):
        pin.release()
    assert routes.snapshot.versions["m"][1].num_pins == 0
