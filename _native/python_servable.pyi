from collections.abc import Callable

from typing_extensions import disjoint_base

@disjoint_base
class PythonServable:
    """A version whose requests ``answer(method, payload, remaining_us)`` answers with (code, message, response).

    method is a number of execution_pool's, payload the serialized request, remaining_us the time until its deadline or
    -1; message is of an error, response, serialized, of success. Called on execution threads, as many at a time as the
    loop has of them, with the GIL. What it raises becomes INTERNAL.
    """

    def __init__(self, answer: Callable[[int, bytes, int], tuple[int, bytes, bytes]]) -> None: ...
