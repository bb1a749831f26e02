def priority(value: bytes) -> int:
    """Of an x-priority header: 1 for high, 0 for normal and whatever is not known, -1 for low; in any case."""
