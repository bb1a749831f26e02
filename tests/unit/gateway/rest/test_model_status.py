"""The JSON of a model's versions."""

from collections.abc import Sequence

import pytest

from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.rest.model_status import model_status_json
from tensorgate.gateway.rest.url_grammar import ModelAddress
from tensorgate.protos.status_codes import Code, ServingError

FAILED = ServingError(Code.NOT_FOUND, 'no "saved_model.pb" here, née')


class FakeMonitor:
    """Knows two versions of a model m."""

    def versions(self, name: str) -> Sequence[ServableState]:
        if name != "m":
            return []
        return [
            ServableState(ServableId("m", 124), ManagerState.AVAILABLE, None, 2),
            ServableState(ServableId("m", 123), ManagerState.END, FAILED, 1),
        ]


AVAILABLE_TEXT = """\
  {
   "version": "124",
   "state": "AVAILABLE",
   "status": {
    "error_code": "OK",
    "error_message": ""
   }
  }"""
ENDED_TEXT = """\
  {
   "version": "123",
   "state": "END",
   "status": {
    "error_code": "NOT_FOUND",
    "error_message": "no \\"saved_model.pb\\" here, née"
   }
  }"""


@pytest.mark.parametrize(
    ("model", "versions"),
    [
        (ModelAddress("m"), [AVAILABLE_TEXT, ENDED_TEXT]),
        (ModelAddress("m", 124), [AVAILABLE_TEXT]),
        (ModelAddress("m", 123), [ENDED_TEXT]),
        (ModelAddress("m", None, "any label is ignored"), [AVAILABLE_TEXT, ENDED_TEXT]),
    ],
)
def test_versions_are_listed_largest_first(model: ModelAddress, versions: list[str]) -> None:
    expected = '{\n "model_version_status": [\n' + ",\n".join(versions) + "\n ]\n}\n"
    assert model_status_json(FakeMonitor(), model).decode() == expected


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ModelAddress("m", 0), "Could not find version 0 of model m"),
        (ModelAddress("n", 1), "Could not find version 1 of model n"),
        (ModelAddress("n"), "Could not find any versions of model n"),
    ],
)
def test_nothing_to_list_is_not_found(model: ModelAddress, message: str) -> None:
    with pytest.raises(ServingError) as caught:
        model_status_json(FakeMonitor(), model)
    assert caught.value == ServingError(Code.NOT_FOUND, message)
