"""Sums over the gateway's native threads, as DataPlane's methods of about the same names return them."""

from tensorgate._native.data_thread cimport DataThread

cdef sum_counters(const DataThread* threads, int num_threads)
# These while the threads' dispatchers are there.
cdef dict all_unrouted(DataThread* threads, int num_threads)
cdef tuple take_all_records(DataThread* threads, int num_threads)
cdef tuple take_all_logged(DataThread* threads, int num_threads)
