"""What the HTTP connections want of the application that answers their requests.

Between http_connection, which calls it, and app, which is one (the console's is another). All on the loop of the
connections.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeAlias

from tensorgate.gateway.dispatch.call import Cancellable
from tensorgate.gateway.rest.http_messages import Answer, RequestHead

# Takes the body in the pieces in which it came: putting a large one together takes longer than a small request.
BodyHandler: TypeAlias = Callable[[list[bytes]], Coroutine[Any, Any, Answer]]
Begun: TypeAlias = Answer | BodyHandler

# Takes a whole body, and what to call once with the answer, later, on the loop, also after a cancel. None: nothing has
# been done, and the application is to ``begin`` with the request as with any other.
BeginQuickly: TypeAlias = Callable[[bytes, Callable[[Answer], None]], Cancellable | None]


class Application(Protocol):
    """What answers requests."""

    max_body_bytes: int
    """Bound of a body as it is sent."""

    def begin(self, head: RequestHead) -> Begun:
        """The answer where the body does not matter, else what makes the answer of the body. Raises nothing.

        The coroutine is cancelled when the client goes away or the server's grace is over; it may answer even so.
        """
        ...

    def quick(self, head: RequestHead) -> BeginQuickly | None:
        """A quicker way for requests with this head, which are likely to come again. Raises nothing."""
        ...

    def refuse_body(self, head: RequestHead, num_bytes: int | None) -> Answer:
        """The answer to a body beyond max_body_bytes; num_bytes where the client has told. Raises nothing."""
        ...
