"""The routes as native threads read them: immutable snapshots of which versions can be reached, and pins on versions.

A snapshot and the versions in it are made by the control plane. A native thread uses the snapshot it was given by its
mailbox until it is given another; only then is the old one freed (see data_plane).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.posix cimport load_pointer
from tensorgate._native.proto_scan cimport ModelSpecView
from tensorgate._native.request_stats cimport VersionStats


cdef enum:
    MAX_WEIGHT = 1000


cdef struct Replica:
    uint64_t worker            # number of the worker's incarnation, see dispatcher.Worker
    uint64_t servable_handle   # the version's handle there


cdef struct ReplicaSet:
    # Never changes; the replicas lie in the same block of memory.
    int num_replicas
    Replica* replicas


cdef struct SignatureName:
    uint8_t* name
    size_t name_size


cdef struct VersionState:
    # One published version. Lives until it has been withdrawn, every native thread has the newer snapshot, and its
    # last pin has ended.
    int64_t num_pins           # atomic
    int64_t is_closed          # atomic: withdrawn and out of every thread's snapshot, so that pins only go down
    int drained_fd             # eventfd rung by whoever finds is_closed and no pins; -1 until it is closed
    uint8_t* name              # the model's, UTF-8, not terminated; owned
    size_t name_size
    int64_t version
    # Where it is loaded, read with version_replicas; NULL while its worker is being respawned. The control plane
    # replaces it as a whole and frees the old one when every native thread has been through a turn since.
    ReplicaSet* replicas
    VersionStats* stats        # one of each native thread, which alone writes it; NULL: nothing is counted
    # Signatures whose requests are counted apart, at most NUM_SIGNATURES - 1; they never change.
    SignatureName* signatures
    size_t num_signatures
    # Of 64 random bits: requests with one below it are logged, 0: none. The control plane sets it at any time.
    int64_t log_below          # atomic; its bits are a uint64_t's
    # Admission, of each thread and worker. Set by the control plane at any time.
    int64_t max_handed         # atomic; requests that the worker is handed at a time, 0: the line's credit
    int64_t max_queued         # atomic; requests that wait, -1: as many as the line has room for
    int64_t weight             # atomic; from 1 to MAX_WEIGHT


cdef struct Label:
    uint8_t* name
    size_t name_size
    int64_t version


cdef struct ModelRoutes:
    uint8_t* name
    size_t name_size
    VersionState** versions    # largest version first
    int num_versions           # may be 0 for a model that has labels only
    Label* labels
    int num_labels


cdef struct RouteSnapshot:
    ModelRoutes* models        # sorted by name (size first, then bytes): found by bisection
    int num_models


# What a turn of the loop may use until it ends, and no longer; NULL: nowhere.
cdef inline const ReplicaSet* version_replicas(VersionState* version) noexcept nogil:
    return <const ReplicaSet*>load_pointer(&version.replicas)


# The version that the model_spec asks for, pinned; or NULL with the canonical code and upstream's text (spec 6.1):
# INVALID_ARGUMENT for a missing model_spec, an empty name or an unknown label, NOT_FOUND for what is not published.
cdef VersionState* resolve_route(
    const RouteSnapshot* snapshot, const ModelSpecView* spec, int* code, ByteWriter* message) noexcept nogil
cdef void pin_version(VersionState* version) noexcept nogil
# Where in VersionStats requests for the signature are counted; an empty name is the default signature's.
cdef size_t signature_place(const VersionState* version, const uint8_t* name, size_t size) noexcept nogil
# The last pin of a closed version rings its drained_fd.
cdef void unpin_version(VersionState* version) noexcept nogil


cdef class PublishedVersion:
    cdef VersionState state
    cdef readonly str name
    cdef tuple _signatures  # as the state has them
    cdef size_t _num_threads

    # Has requests counted; before it is in any thread's snapshot. Once is enough.
    cdef int count_requests(self, size_t num_threads) except -1
    # What was counted, see DataPlane.request_stats.
    cdef list read_requests(self)

    # See DataPlane.set_limits. Raises ValueError.
    cdef int limit_requests(self, int64_t max_handed, int64_t max_queued, int64_t weight) except -1

    # The former set, the caller's to free once no thread can be using it; on failure the present one stays.
    cdef ReplicaSet* swap_replicas(self, replicas) except? NULL


cdef class Routes:
    cdef RouteSnapshot snapshot
    cdef readonly tuple versions  # what the snapshot points to
