from tensorgate._native.batching_options import BatchingOptions
from tensorgate._native.session import Session

def batch_cost(
    session: Session, options: BatchingOptions, payload: bytes, num_requests: int, rounds: int
) -> tuple[float, float, float, float, int]:
    """What merging costs beside the run itself, measured in the calling thread with the GIL released.

    ``num_requests`` Predicts of these bytes become tasks, go through a queue and are packed, ``rounds`` times. Returns
    the medians: nanoseconds a request to prepare it, to queue it and take it out, and to pack it; those that memcpy
    takes for as many bytes; and the bytes a request. Raises ValueError for a request that is not merged.
    """
