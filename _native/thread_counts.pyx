"""What the gateway's native threads have counted and recorded, put together; for data_plane.

Beside a request's line, with the GIL, on whatever thread asks; the native threads go on counting meanwhile.
"""

from libc.string cimport memset

from tensorgate._native.dispatcher_state cimport DispatchCounters
from tensorgate._native.posix cimport atomic_load
from tensorgate._native.request_account cimport read_unrouted, take_logged, take_records


cdef sum_counters(const DataThread* threads, int num_threads):
    cdef const DispatchCounters* each
    cdef DispatchCounters total
    cdef int i
    memset(&total, 0, sizeof(DispatchCounters))
    for i in range(num_threads):
        each = &threads[i].dispatcher.counters
        total.submitted += each.submitted
        total.succeeded += each.succeeded
        total.failed += each.failed
        total.cancelled += each.cancelled
        total.deadline_exceeded += each.deadline_exceeded
        total.refused += each.refused
        total.rerouted += each.rerouted
        total.late_replies += each.late_replies
        total.unknown_replies += each.unknown_replies
        total.foreign_replies += each.foreign_replies
    # Every thread buries a worker of its own; it died once.
    total.worker_deaths = threads[0].dispatcher.counters.worker_deaths
    return total


cdef dict all_unrouted(DataThread* threads, int num_threads):
    cdef dict counts = {}
    cdef int i
    for i in range(num_threads):
        read_unrouted(threads[i].dispatcher.account, counts)
    return counts


cdef tuple take_all_records(DataThread* threads, int num_threads):
    cdef list records = []
    cdef int i
    dropped = 0
    for i in range(num_threads):
        take_records(threads[i].dispatcher.account, records)
        dropped += atomic_load(&threads[i].dispatcher.account.num_dropped)
    return records, dropped


cdef tuple take_all_logged(DataThread* threads, int num_threads):
    cdef list logged = []
    cdef int i
    dropped = 0
    for i in range(num_threads):
        take_logged(threads[i].dispatcher.account, logged)
        dropped += threads[i].dispatcher.account.num_logged_dropped
    return logged, dropped
