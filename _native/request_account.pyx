"""Keeps account of requests that have ended: who was not found, which ones the logs and traces are to have.

At the end of a request's line in the gateway: dispatcher → here ‖ Python's loggers, which come round once a second.
Records are fixed in size and go through a ring without a lock; what finds it full is dropped and counted.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from tensorgate._native.posix cimport (
    atomic_add,
    atomic_load,
    atomic_store,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)

cdef enum:
    # Of one thread, waiting for Python to write it.
    MAX_LOGGED_BYTES = 64 * 1024 * 1024


cdef uint64_t share_of_randoms(double share) noexcept nogil:
    if not share > 0:
        return 0
    if share >= 1:
        return <uint64_t>-1
    return <uint64_t>(share * 18446744073709549568.0)  # the largest double below 2^64


cdef RequestAccount* account_new(uint64_t seed) noexcept nogil:
    cdef RequestAccount* account = <RequestAccount*>calloc(1, sizeof(RequestAccount))
    if account is not NULL:
        # Of xorshift any state but 0 will do; neighbouring seeds are to be far from each other.
        account.random = (seed + 1) * <uint64_t>0x9E3779B97F4A7C15
        pthread_mutex_init(&account.mutex, NULL)
    return account


cdef void account_free(RequestAccount* account) noexcept nogil:
    cdef LoggedRequest* following
    if account is NULL:
        return
    while account.first_logged is not NULL:
        following = account.first_logged.next
        free(account.first_logged.bytes)
        free(account.first_logged)
        account.first_logged = following
    pthread_mutex_destroy(&account.mutex)
    free(account.ring)
    free(account)


cdef bint account_sample(RequestAccount* account, double share, bint records_traces) noexcept nogil:
    if account.ring is NULL:
        account.ring = <RequestRecord*>calloc(NUM_RECORDS, sizeof(RequestRecord))
        if account.ring is NULL:
            return False
    account.sample_below = share_of_randoms(share)
    account.records_traces = records_traces
    return True


cdef void account_unrouted(
        RequestAccount* account, uint64_t method, int code, const uint8_t* name, size_t name_size) noexcept nogil:
    cdef Unrouted* place
    cdef int64_t i
    cdef int64_t known = account.num_unrouted
    if name_size > MAX_RECORDED_NAME:
        name_size = MAX_RECORDED_NAME
    for i in range(known):
        place = &account.unrouted[i]
        if (
            place.method == method and place.code == code and place.name_size == name_size
            and (name_size == 0 or memcmp(place.name, name, name_size) == 0)
        ):
            place.count += 1
            return
    if known < NUM_UNROUTED - 1:
        place = &account.unrouted[known]
        place.method = method
        place.code = code
        place.name_size = name_size
        if name_size:
            memcpy(place.name, name, name_size)
        place.count = 1
        atomic_store(&account.num_unrouted, known + 1)
    else:
        account.unrouted[NUM_UNROUTED - 1].count += 1


cdef RequestRecord* record_place(RequestAccount* account) noexcept nogil:
    if account.head - atomic_load(&account.tail) >= NUM_RECORDS:
        atomic_add(&account.num_dropped, 1)
        return NULL
    return &account.ring[account.head & (NUM_RECORDS - 1)]


cdef void record_push(RequestAccount* account) noexcept nogil:
    atomic_store(&account.head, account.head + 1)


cdef void account_log(
        RequestAccount* account, int64_t ended_us, int64_t version, uint64_t method, uint8_t* bytes, size_t name_size,
        size_t request_size, size_t reply_size) noexcept nogil:
    cdef LoggedRequest* logged = <LoggedRequest*>calloc(1, sizeof(LoggedRequest))
    cdef size_t size = name_size + request_size + reply_size
    cdef bint is_taken = False
    if logged is not NULL:
        logged.ended_us = ended_us
        logged.version = version
        logged.method = method
        logged.name_size = name_size
        logged.request_size = request_size
        logged.reply_size = reply_size
        logged.bytes = bytes
    pthread_mutex_lock(&account.mutex)
    if logged is not NULL and size <= MAX_LOGGED_BYTES - account.logged_bytes:
        is_taken = True
        account.logged_bytes += size
        if account.last_logged is NULL:
            account.first_logged = logged
        else:
            account.last_logged.next = logged
        account.last_logged = logged
    else:
        account.num_logged_dropped += 1
    pthread_mutex_unlock(&account.mutex)
    if not is_taken:
        free(bytes)
        free(logged)


# --- for Python -------------------------------------------------------------------------------------------------------


cdef str _text(const uint8_t* data, size_t size):
    return PyBytes_FromStringAndSize(<const char*>data, <Py_ssize_t>size).decode("utf-8", "replace")


cdef void read_unrouted(RequestAccount* account, dict counts):
    cdef Unrouted* place
    cdef int64_t i
    cdef int64_t known = atomic_load(&account.num_unrouted)
    for i in range(known):
        place = &account.unrouted[i]
        key = (_text(place.name, place.name_size), place.method, place.code)
        counts[key] = counts.get(key, 0) + place.count
    if account.unrouted[NUM_UNROUTED - 1].count:
        key = ("", 0, 2)  # UNKNOWN: of what, is not known any more
        counts[key] = counts.get(key, 0) + account.unrouted[NUM_UNROUTED - 1].count


cdef void take_records(RequestAccount* account, list records):
    cdef RequestRecord* record
    cdef int64_t tail = account.tail
    cdef int64_t head
    if account.ring is NULL:
        return
    head = atomic_load(&account.head)
    while tail < head:
        record = &account.ring[tail & (NUM_RECORDS - 1)]
        records.append((
            record.ended_us, _text(record.name, record.name_size), record.version, record.method, record.request_id,
            record.code, record.is_native, record.is_sampled, record.total_us, record.queue_us, record.run_us,
            record.batch_rows, record.padding_rows, record.request_bytes, record.reply_bytes,
            _text(record.traceparent, record.traceparent_size),
        ))
        tail += 1
        atomic_store(&account.tail, tail)


cdef void take_logged(RequestAccount* account, list logged):
    cdef LoggedRequest* each
    cdef LoggedRequest* following
    cdef uint8_t* at
    pthread_mutex_lock(&account.mutex)
    each = account.first_logged
    account.first_logged = NULL
    account.last_logged = NULL
    account.logged_bytes = 0
    pthread_mutex_unlock(&account.mutex)
    while each is not NULL:
        following = each.next
        at = each.bytes
        logged.append((
            each.ended_us, _text(at, each.name_size), each.version, each.method,
            PyBytes_FromStringAndSize(<const char*>at + each.name_size, <Py_ssize_t>each.request_size),
            PyBytes_FromStringAndSize(
                <const char*>at + each.name_size + each.request_size, <Py_ssize_t>each.reply_size),
        ))
        free(each.bytes)
        free(each)
        each = following
