"""The two policies as tables: the versions of a model, and the one thing to do next."""

import pytest

from tensorgate.gateway.core.aspired_version_policy import (
    ActionKind,
    AspiredVersionPolicy,
    AvailabilityPreservingPolicy,
    PolicyAction,
    ResourcePreservingPolicy,
    VersionSnapshot,
)
from tensorgate.gateway.core.loader_harness import HarnessState

NEW, LOADING, READY, ERROR = HarnessState.NEW, HarnessState.LOADING, HarnessState.READY, HarnessState.ERROR
UNLOAD_REQUESTED, QUIESCING = HarnessState.UNLOAD_REQUESTED, HarnessState.QUIESCING
UNLOADING, DISABLED = HarnessState.UNLOADING, HarnessState.DISABLED
LOAD, UNLOAD = ActionKind.LOAD, ActionKind.UNLOAD

# What is aspired, and what is not: version → state.
Versions = dict[int, HarnessState]
Row = tuple[str, Versions, Versions, tuple[ActionKind, int] | None]

AVAILABILITY: list[Row] = [
    ("no versions at all", {}, {}, None),
    ("the highest new aspired version is loaded", {4: READY, 3: NEW, 2: NEW}, {}, (LOAD, 3)),
    ("the first version of a model is loaded", {1: NEW}, {}, (LOAD, 1)),
    ("unloading comes before loading when an aspired one is ready", {4: READY, 3: NEW}, {2: READY}, (UNLOAD, 2)),
    ("with nothing aspired the lowest is unloaded", {}, {3: READY, 1: READY, 2: READY}, (UNLOAD, 1)),
    ("with nothing aspired the last one is unloaded, too", {}, {3: READY}, (UNLOAD, 3)),
    ("nothing to do when all is settled", {5: READY, 4: ERROR}, {3: DISABLED, 2: ERROR}, None),
    ("the last ready one stays while the new one is new", {5: NEW}, {4: READY}, (LOAD, 5)),
    ("the last ready one stays while the new one is loading", {5: LOADING}, {4: READY}, None),
    ("the last ready one stays when the new one has failed", {5: ERROR}, {4: READY}, None),
    (
        "it goes when another aspired one is ready though a third is loading",
        {7: LOADING, 6: READY},
        {4: READY},
        (UNLOAD, 4),
    ),
    (
        "it goes when another aspired one is ready though a third has failed",
        {7: ERROR, 6: READY},
        {4: READY},
        (UNLOAD, 4),
    ),
    ("of two stale ready ones the lower one goes early", {5: LOADING}, {4: READY, 3: READY}, (UNLOAD, 3)),
    ("of two stale ones only one is ready: it stays", {5: LOADING}, {4: READY, 3: QUIESCING}, None),
    ("of two stale ones the one in error does not count", {5: NEW}, {4: READY, 3: ERROR}, (LOAD, 5)),
    ("a version lower than the ready one is loaded, too", {3: NEW}, {4: READY}, (LOAD, 3)),
    ("a version that is loading is left alone, the next is loaded beside it", {5: LOADING, 4: NEW}, {}, (LOAD, 4)),
    ("what is on its way out needs nothing", {}, {2: QUIESCING, 1: UNLOADING}, None),
    ("what is loading can not be unloaded", {}, {2: LOADING}, None),
]

RESOURCES: list[Row] = [
    ("no versions at all", {}, {}, None),
    ("what is not aspired is unloaded first", {5: NEW}, {4: READY}, (UNLOAD, 4)),
    ("also when an aspired one is ready", {5: READY, 6: NEW}, {4: READY}, (UNLOAD, 4)),
    ("the highest new one is loaded when there is nothing to unload", {5: NEW, 4: NEW, 3: READY}, {}, (LOAD, 5)),
    ("nothing is loaded while another is still unloading", {5: NEW}, {4: UNLOADING}, None),
    ("nothing is loaded while another is still answering requests", {5: NEW}, {4: QUIESCING}, None),
    ("a requested unload blocks", {5: NEW}, {4: UNLOAD_REQUESTED}, None),
    ("a load that is no longer wanted blocks until it is undone", {5: NEW}, {4: LOADING}, None),
    ("what has failed or is gone does not block", {5: NEW}, {4: ERROR, 3: DISABLED}, (LOAD, 5)),
    ("nothing to do when all is settled", {5: READY, 4: ERROR}, {}, None),
    ("one is unloaded beside another that is still unloading", {5: NEW}, {4: UNLOADING, 3: READY}, (UNLOAD, 3)),
]


def check(
    policy: AspiredVersionPolicy, aspired: Versions, stale: Versions, action: tuple[ActionKind, int] | None
) -> None:
    snapshots = [VersionSnapshot(version, state, True) for version, state in aspired.items()]
    snapshots += [VersionSnapshot(version, state, False) for version, state in stale.items()]
    expected = None if action is None else PolicyAction(*action)
    assert policy.next_action(snapshots) == expected
    # The order in which versions are listed says nothing.
    assert policy.next_action(snapshots[::-1]) == expected


@pytest.mark.parametrize(
    ("aspired", "stale", "action"), [row[1:] for row in AVAILABILITY], ids=[r[0] for r in AVAILABILITY]
)
def test_the_availability_preserving_policy_keeps_a_version_that_serves(
    aspired: Versions, stale: Versions, action: tuple[ActionKind, int] | None
) -> None:
    check(AvailabilityPreservingPolicy(), aspired, stale, action)


@pytest.mark.parametrize(("aspired", "stale", "action"), [row[1:] for row in RESOURCES], ids=[r[0] for r in RESOURCES])
def test_the_resource_preserving_policy_gives_memory_back_first(
    aspired: Versions, stale: Versions, action: tuple[ActionKind, int] | None
) -> None:
    check(ResourcePreservingPolicy(), aspired, stale, action)
