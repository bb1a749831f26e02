from typing_extensions import Buffer

from tensorgate._native.session import Session

def run_once(session: Session, method: int, payload: Buffer, remaining_us: int = -1) -> tuple[int, bytes, bytes, int]:
    """One request on the calling thread, with the GIL released: (code, message, response, run_us).

    ``method`` is a number of gateway/dispatch/call.py's Method, ``payload`` its serialized request. For warm-up, tests
    and benchmarks. Raises RuntimeError on a session that is closed; a request that fails has its code.
    """
