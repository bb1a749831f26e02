from collections.abc import Sequence

from typing_extensions import disjoint_base

@disjoint_base
class BatchingOptions:
    """How a version's requests are merged. Upstream's BatchingParameters by their names, found good by the caller.

    ``max_batch_size`` bounds a request, ``max_execution_batch_size`` a batch, in rows. ``auto_latency_target_us`` above
    0: the limit of a batch, and how long one waits, are found while serving. Raises ValueError for no threads.
    """

    num_batch_threads: int
    max_batch_size: int
    max_execution_batch_size: int
    batch_timeout_micros: int
    max_enqueued_batches: int
    allowed_batch_sizes: tuple[int, ...]
    pad_variable_length_inputs: bool
    enable_large_batch_splitting: bool
    refuse_mixed_shapes: bool
    crop_padded_outputs: bool
    auto_latency_target_us: int
    def __init__(
        self,
        num_batch_threads: int,
        max_batch_size: int,
        max_execution_batch_size: int,
        batch_timeout_micros: int,
        max_enqueued_batches: int,
        allowed_batch_sizes: Sequence[int] = (),
        pad_variable_length_inputs: bool = False,
        enable_large_batch_splitting: bool = False,
        refuse_mixed_shapes: bool = False,
        crop_padded_outputs: bool = False,
        auto_latency_target_us: int = 0,
    ) -> None: ...
