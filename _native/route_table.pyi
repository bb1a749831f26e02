from collections.abc import Mapping, Sequence

from typing_extensions import Buffer, Self, disjoint_base

@disjoint_base
class PublishedVersion:
    """One version that requests can reach, and how many use it. Any thread, under the GIL.

    ``name`` may be any text, ``version`` any 64-bit integer. Requests for ``signatures`` are counted apart, where they
    are not too many. Whoever gives it to native threads keeps it until it is
    drained and they have been through a turn since (DataPlane does).
    """

    name: str
    def __new__(cls, name: str, version: int, signatures: Sequence[str] = ()) -> Self: ...
    @property
    def version(self) -> int: ...
    @property
    def num_pins(self) -> int:
        """Requests that keep it loaded, those in native threads included."""

    @property
    def is_closed(self) -> bool: ...
    @property
    def is_drained(self) -> bool:
        """Closed, and nobody uses it any more."""

    @property
    def drained_fd(self) -> int:
        """Readable once the version is drained, -1 before ``close``; owned by the object."""

    @property
    def replicas(self) -> list[tuple[int, int]]:
        """(number of the worker's incarnation, servable handle there) of each loaded copy."""

    def log_requests(self, share: float) -> None:
        """How many of the requests that succeed are kept for DataPlane.take_logged: 0 for none, 1 for all."""

    def try_pin(self) -> bool:
        """Counts one more user; False when the version has been closed."""

    def unpin(self) -> None:
        """Counts one user less. Raises RuntimeError if there is none."""

    def close(self) -> None:
        """No further pins; no native thread may have it in its snapshot any more. Idempotent.

        Raises OSError when there is no descriptor left, and has then done nothing.
        """

@disjoint_base
class Routes:
    """An immutable snapshot: model name to its versions, in any order, and its labels.

    A model may have labels only. Nothing is checked: a label may name a version that is not published.
    """

    versions: tuple[PublishedVersion, ...]
    def __new__(cls, models: Mapping[str, tuple[Sequence[PublishedVersion], Mapping[str, int]]]) -> Self: ...
    def resolve(self, request: Buffer) -> tuple[PublishedVersion | None, int, bytes]:
        """The version that the model_spec in field 1 of a request asks for, pinned; or None, a code and a text.

        As native threads do it; for tests. Raises ValueError for bytes that are no message.
        """
