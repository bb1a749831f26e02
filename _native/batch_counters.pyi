WAIT_LIMITS_US: tuple[float, ...]
"""Between the buckets of waiting times: TensorFlow Serving's, 100 µs * 1.2^i."""
