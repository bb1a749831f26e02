"""Counts a version's requests in buckets that were made beforehand.

At the end of a request's line in the gateway: dispatcher → request_account → here; read by the metrics pages.

Source: tensorflow/core/lib/monitoring/sampler.cc (Buckets::Exponential) and histogram.cc (a value that equals a limit
is above it).
"""

from libc.math cimport ceil
from libc.stddef cimport size_t
from libc.stdint cimport uint64_t


cdef uint64_t[NUM_LATENCY_BUCKETS - 1] latency_limits
cdef uint64_t[NUM_ROW_BUCKETS - 1] row_limits


cdef tuple _exponential(double first, double growth, int count, uint64_t* whole):
    """Limits, and the least whole numbers that are not below them."""
    cdef double limit = first
    cdef int i
    limits = []
    for i in range(count):
        limits.append(limit)
        whole[i] = <uint64_t>ceil(limit)
        limit *= growth
    return tuple(limits)


LATENCY_LIMITS_US = _exponential(10, 1.8, NUM_LATENCY_BUCKETS - 1, latency_limits)
ROW_LIMITS = _exponential(1, 2, NUM_ROW_BUCKETS - 1, row_limits)


cdef inline int _bucket_of(const uint64_t* limits, int num_limits, uint64_t value) noexcept nogil:
    """How many limits are not above the value."""
    cdef int low = 0
    cdef int high = num_limits
    cdef int middle
    while low < high:
        middle = (low + high) // 2
        if value < limits[middle]:
            high = middle
        else:
            low = middle + 1
    return low


cdef inline void _count(LatencyHistogram* histogram, uint64_t value_us) noexcept nogil:
    histogram.buckets[_bucket_of(latency_limits, NUM_LATENCY_BUCKETS - 1, value_us)] += 1
    histogram.sum_us += value_us


cdef void count_success(
        MethodStats* stats, uint64_t total_us, uint64_t queue_us, uint64_t run_us, uint64_t batch_rows,
        uint64_t padding_rows, uint64_t request_bytes, uint64_t reply_bytes) noexcept nogil:
    stats.by_code[0] += 1
    _count(&stats.total, total_us)
    _count(&stats.queue, queue_us)
    _count(&stats.run, run_us)
    if batch_rows:
        stats.row_buckets[_bucket_of(row_limits, NUM_ROW_BUCKETS - 1, batch_rows)] += 1
        stats.sum_rows += batch_rows
        stats.sum_padding_rows += padding_rows
    stats.request_bytes += request_bytes
    stats.reply_bytes += reply_bytes


# --- for Python -------------------------------------------------------------------------------------------------------


cdef tuple _histogram(const VersionStats* threads, size_t num_threads, int entrypoint, int method, int which):
    cdef const MethodStats* stats
    cdef const LatencyHistogram* histogram
    cdef size_t thread
    cdef int i
    buckets = [0] * NUM_LATENCY_BUCKETS
    sum_us = 0
    for thread in range(num_threads):
        stats = &threads[thread].methods[entrypoint][method]
        histogram = &stats.total if which == 0 else &stats.queue if which == 1 else &stats.run
        for i in range(NUM_LATENCY_BUCKETS):
            buckets[i] += histogram.buckets[i]
        sum_us += histogram.sum_us
    return buckets, sum_us


cdef list read_stats(const VersionStats* threads, size_t num_threads):
    cdef const MethodStats* stats
    cdef size_t thread
    cdef int entrypoint, method, i
    found = []
    for entrypoint in range(NUM_ENTRYPOINTS):
        for method in range(NUM_METHODS):
            by_code = [0] * NUM_CODES
            rows = [0] * NUM_ROW_BUCKETS
            sum_rows = sum_padding_rows = request_bytes = reply_bytes = 0
            for thread in range(num_threads):
                stats = &threads[thread].methods[entrypoint][method]
                for i in range(NUM_CODES):
                    by_code[i] += stats.by_code[i]
                for i in range(NUM_ROW_BUCKETS):
                    rows[i] += stats.row_buckets[i]
                sum_rows += stats.sum_rows
                sum_padding_rows += stats.sum_padding_rows
                request_bytes += stats.request_bytes
                reply_bytes += stats.reply_bytes
            if any(by_code):
                found.append((
                    entrypoint, method, by_code,
                    _histogram(threads, num_threads, entrypoint, method, 0),
                    _histogram(threads, num_threads, entrypoint, method, 1),
                    _histogram(threads, num_threads, entrypoint, method, 2),
                    (rows, sum_rows), sum_padding_rows, request_bytes, reply_bytes,
                ))
    return found
