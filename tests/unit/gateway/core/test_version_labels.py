"""Which version labels may be assigned, as a table."""

import pytest

from tensorgate.gateway.core.version_labels import check_version_labels
from tensorgate.protos.status_codes import Code, ServingError

SERVING = (1, 2)


@pytest.mark.parametrize(
    ("labels", "assigned", "allows_unavailable", "refused_version"),
    [
        ({}, {}, False, None),
        ({"a": 1, "b": 2}, {}, False, None),
        ({"a": 1, "b": 1}, {"a": 2}, False, None),
        ({"a": 3}, {}, False, 3),
        ({"a": 3}, {"a": 3}, False, 3),
        ({"a": 1, "b": 3}, {"a": 1}, False, 3),
        ({"b": 4, "a": 3}, {}, False, 3),
        ({}, {"a": 9}, False, None),
        ({"a": 3}, {}, True, None),
        ({"a": 3}, {"a": 3}, True, None),
        ({"a": 3}, {"b": 1}, True, None),
        ({"a": 3}, {"a": 1}, True, 3),
        ({"a": 2}, {"a": 1}, True, None),
    ],
)
def test_a_label_needs_a_version_that_serves_unless_it_is_new_and_that_is_allowed(
    labels: dict[str, int], assigned: dict[str, int], allows_unavailable: bool, refused_version: int | None
) -> None:
    def check() -> None:
        check_version_labels("m", labels, assigned, SERVING.__contains__, allows_unavailable=allows_unavailable)

    if refused_version is None:
        check()
        return
    with pytest.raises(ServingError) as caught:
        check()
    assert (caught.value.code, caught.value.message) == (
        Code.FAILED_PRECONDITION,
        f"Request to assign label to version {refused_version} of model m, which is not currently available for"
        " inference",
    )
