LATENCY_LIMITS_US: tuple[float, ...]
"""Upper limits of the buckets of times, without the last one, which has none; a time equal to one is above it."""

ROW_LIMITS: tuple[float, ...]
"""Likewise of the buckets of batches' rows."""

OTHER_SIGNATURES: str
"""What requests are counted under whose signature a version does not have, or has one too many."""
