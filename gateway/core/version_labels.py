"""Version labels: which may be assigned, as a pure function of what is served.

Beside a version's line: model_config_manager asks before it gives labels to the route table. No threads, no memory.

Source: tensorflow_serving/model_servers/server_core.cc (UpdateModelVersionLabelMap: the rules and the text).
"""

from collections.abc import Callable, Mapping

from tensorgate.protos.status_codes import Code, ServingError


def check_version_labels(
    name: str,
    labels: Mapping[str, int],
    assigned: Mapping[str, int],
    will_serve: Callable[[int], bool],
    *,
    allows_unavailable: bool,
) -> None:
    """Whether the labels of the model ``name`` may become these; ``assigned`` are the ones it has.

    A label has to stand for a version that serves, and will go on serving. ``allows_unavailable``: so it has only when
    it stands for another version now.

    Raises ServingError FAILED_PRECONDITION, in upstream's words, for the first that may not.
    """
    for label, version in sorted(labels.items()):
        if allows_unavailable and assigned.get(label, version) == version:
            continue
        if not will_serve(version):
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f"Request to assign label to version {version} of model {name}, which is not currently available for"
                " inference",
            )
