from typing import Literal

from typing_extensions import Buffer

from tensorgate._native.session import Session

# The numbers of gateway/dispatch/call.py's Method.
PREDICT: Literal[1]
CLASSIFY: Literal[2]
REGRESS: Literal[3]
MULTI_INFERENCE: Literal[4]
SESSION_RUN: Literal[5]

def run_once(session: Session, method: int, payload: Buffer, remaining_us: int = -1) -> tuple[int, bytes, bytes, int]:
    """One request on the calling thread, with the GIL released: (code, message, response, run_us).

    ``method`` is one of the numbers above, ``payload`` its serialized request. For warm-up, tests
    and benchmarks. Raises RuntimeError on a session that is closed; a request that fails has its code.
    """
