from collections.abc import Iterable

def float32_texts(values: Iterable[float]) -> list[str] | None:
    """The text of each value, rounded to float32 first; None if some last digit cannot be told (float_format can).

    Six digits where they read back as the same float32, else nine.
    """

def float64_texts(values: Iterable[float]) -> list[str] | None:
    """The text of each value: six digits where they read back as the same double, else seventeen; None as above."""
