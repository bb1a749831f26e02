from typing_extensions import Buffer

from tensorgate._native.session import Session

def predict_once(session: Session, payload: Buffer, remaining_us: int = -1) -> tuple[int, bytes, bytes, int]:
    """One Predict on the calling thread: (code, message, response, run_us). For tests and benchmarks."""
