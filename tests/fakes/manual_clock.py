"""A Clock whose hands the test moves."""


class ManualClock:
    """Stands in for core's Clock; both readings show the same moment, which only ``advance`` changes."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def monotonic_s(self) -> float:
        return self.now_s

    def time_us(self) -> int:
        return round(self.now_s * 1e6)

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
