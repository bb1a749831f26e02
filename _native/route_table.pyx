"""Looks a model_spec up in a snapshot of the routes, and counts the users of versions; without the GIL.

On a request's line: model_spec → route → dispatcher. A snapshot (Routes) and the versions in it (PublishedVersion) are
made and kept by the control plane, gateway/dispatch/route_table.py, and given to native threads by data_plane. Pins are
counted by any thread, Python's included, in one atomic number per version.

Source: tensorflow_serving/core/basic_manager.cc (ServingMap), model_servers/server_core.cc
(ServableRequestFromModelSpec).
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, strlen
from posix.unistd cimport close

from tensorgate._native.byte_writer cimport (
    ByteWriter,
    put_bytes,
    put_decimal,
    put_text,
    writer_free,
    writer_init,
)
from tensorgate._native.posix cimport (
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    atomic_add,
    atomic_load,
    atomic_store,
    eventfd,
    eventfd_write,
    swap_pointer,
)
from tensorgate._native.proto_scan cimport (
    VERSION_LABEL,
    VERSION_NUMBER,
    ModelSpecView,
    scan_model_spec_view,
)
from tensorgate._native.request_account cimport share_of_randoms
from tensorgate._native.request_stats cimport NUM_SIGNATURES, VersionStats, free_stats, read_stats
from tensorgate._native.status_codes cimport INVALID_ARGUMENT, NOT_FOUND, OK


cdef const char* DEFAULT_SIGNATURE = "serving_default"


# --- looking up -------------------------------------------------------------------------------------------------------


cdef inline int _compare_names(
        const uint8_t* one, size_t one_size, const uint8_t* other, size_t other_size) noexcept nogil:
    if one_size != other_size:
        return -1 if one_size < other_size else 1
    return memcmp(one, other, one_size) if one_size else 0


cdef const ModelRoutes* _find_model(const RouteSnapshot* snapshot, const uint8_t* name, size_t size) noexcept nogil:
    cdef const ModelRoutes* model
    cdef int low = 0
    cdef int high, middle, order
    if snapshot is NULL:
        return NULL
    high = snapshot.num_models
    while low < high:
        middle = low + (high - low) // 2
        model = &snapshot.models[middle]
        order = _compare_names(model.name, model.name_size, name, size)
        if order == 0:
            return model
        if order < 0:
            low = middle + 1
        else:
            high = middle
    return NULL


cdef bint _find_label(const ModelRoutes* model, const uint8_t* label, size_t size, int64_t* version) noexcept nogil:
    cdef int i
    if model is NULL:
        return False
    for i in range(model.num_labels):
        if _compare_names(model.labels[i].name, model.labels[i].name_size, label, size) == 0:
            version[0] = model.labels[i].version
            return True
    return False


cdef VersionState* _find_version(const ModelRoutes* model, int64_t version) noexcept nogil:
    cdef int i
    if model is NULL:
        return NULL
    for i in range(model.num_versions):
        if model.versions[i].version == version:
            return model.versions[i]
    return NULL


cdef VersionState* resolve_route(
        const RouteSnapshot* snapshot, const ModelSpecView* spec, int* code, ByteWriter* message) noexcept nogil:
    cdef const ModelRoutes* model
    cdef VersionState* found = NULL
    cdef int64_t wanted = 0
    code[0] = INVALID_ARGUMENT
    if not spec.present:
        put_text(message, "Missing ModelSpec")
        return NULL
    if spec.name_size == 0:
        put_text(message, "ModelSpec has no name specified.")
        return NULL
    model = _find_model(snapshot, spec.name, spec.name_size)
    if spec.version_choice == VERSION_NUMBER:
        wanted = spec.version
    elif spec.version_choice == VERSION_LABEL:
        if not _find_label(model, spec.version_label, spec.version_label_size, &wanted):
            put_text(message, "Unrecognized servable version label: ")
            put_bytes(message, spec.version_label, spec.version_label_size)
            return NULL
    elif model is not NULL and model.num_versions:
        found = model.versions[0]
    if spec.version_choice == VERSION_NUMBER or spec.version_choice == VERSION_LABEL:
        found = _find_version(model, wanted)
    if found is not NULL:
        code[0] = OK
        pin_version(found)
        return found
    code[0] = NOT_FOUND
    put_text(message, "Servable not found for request: ")
    if spec.version_choice == VERSION_NUMBER or spec.version_choice == VERSION_LABEL:
        put_text(message, "Specific(")
        put_bytes(message, spec.name, spec.name_size)
        put_text(message, ", ")
        put_decimal(message, wanted)
    else:
        put_text(message, "Latest(")
        put_bytes(message, spec.name, spec.name_size)
    put_text(message, ")")
    return NULL


# --- pins -------------------------------------------------------------------------------------------------------------


cdef void pin_version(VersionState* version) noexcept nogil:
    atomic_add(&version.num_pins, 1)


cdef void unpin_version(VersionState* version) noexcept nogil:
    # Closing sets is_closed before it looks at the pins, and here they are counted before is_closed is looked at: one
    # of the two rings, perhaps both.
    if atomic_add(&version.num_pins, -1) == 0 and atomic_load(&version.is_closed):
        eventfd_write(version.drained_fd, 1)


cdef size_t signature_place(const VersionState* version, const uint8_t* name, size_t size) noexcept nogil:
    cdef const SignatureName* signature
    cdef size_t i
    if size == 0:
        name = <const uint8_t*>DEFAULT_SIGNATURE
        size = strlen(DEFAULT_SIGNATURE)
    for i in range(version.num_signatures):
        signature = &version.signatures[i]
        if signature.name_size == size and memcmp(signature.name, name, size) == 0:
            return i + 1
    return 0


# --- for the control plane --------------------------------------------------------------------------------------------


cdef uint8_t* _copy_of(bytes text) except NULL:
    """The bytes in memory of their own, also where there are none."""
    cdef size_t size = <size_t>len(text)
    cdef uint8_t* copied = <uint8_t*>malloc(size + 1)
    if copied is NULL:
        raise MemoryError
    memcpy(copied, <const char*>text, size)
    return copied


cdef class PublishedVersion:
    def __cinit__(self, str name not None, int64_t version, signatures=()):
        cdef bytes utf8 = name.encode()
        cdef SignatureName* signature
        self.state.drained_fd = -1
        self.name = name
        self.state.name = _copy_of(utf8)
        self.state.name_size = <size_t>len(utf8)
        self.state.version = version
        self.state.max_queued = -1
        self.state.weight = 1
        # The default one comes first: it is asked for most, and is not to be the one too many.
        self._signatures = tuple(sorted(
            signatures, key=lambda each: (each.encode() != DEFAULT_SIGNATURE, each))[:NUM_SIGNATURES - 1])
        self.state.signatures = <SignatureName*>calloc(len(self._signatures) + 1, sizeof(SignatureName))
        if self.state.signatures is NULL:
            raise MemoryError
        for each in self._signatures:
            utf8 = each.encode()
            signature = &self.state.signatures[self.state.num_signatures]
            signature.name = _copy_of(utf8)
            signature.name_size = <size_t>len(utf8)
            self.state.num_signatures += 1

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.state.num_signatures):
            free(self.state.signatures[i].name)
        free(self.state.signatures)
        free(self.state.name)
        free(self.state.replicas)
        if self.state.stats is not NULL:
            free_stats(self.state.stats, self._num_threads)
        if self.state.drained_fd >= 0:
            close(self.state.drained_fd)

    @property
    def version(self):
        return self.state.version

    @property
    def num_pins(self):
        return atomic_load(&self.state.num_pins)

    @property
    def is_closed(self):
        return atomic_load(&self.state.is_closed) != 0

    @property
    def is_drained(self):
        return self.is_closed and self.num_pins == 0

    @property
    def drained_fd(self):
        return self.state.drained_fd

    @property
    def replicas(self):
        cdef const ReplicaSet* current = version_replicas(&self.state)
        cdef int i
        found = []
        if current is not NULL:
            for i in range(current.num_replicas):
                found.append((current.replicas[i].worker, current.replicas[i].servable_handle))
        return found

    cdef int count_requests(self, size_t num_threads) except -1:
        if self.state.stats is NULL:
            self.state.stats = <VersionStats*>calloc(num_threads, sizeof(VersionStats))
            if self.state.stats is NULL:
                raise MemoryError
            self._num_threads = num_threads
        return 0

    cdef list read_requests(self):
        return read_stats(self.state.stats, self._num_threads, self._signatures)

    def log_requests(self, double share):
        atomic_store(&self.state.log_below, <int64_t>share_of_randoms(share))

    cdef int limit_requests(self, int64_t max_handed, int64_t max_queued, int64_t weight) except -1:
        if max_handed < 0 or max_queued < -1 or not 1 <= weight <= MAX_WEIGHT:
            raise ValueError(f"these limits cannot be: {max_handed}, {max_queued}, {weight}")
        atomic_store(&self.state.max_handed, max_handed)
        atomic_store(&self.state.max_queued, max_queued)
        atomic_store(&self.state.weight, weight)
        return 0

    def try_pin(self):
        # Under the GIL, as close is: nothing comes between the two.
        if atomic_load(&self.state.is_closed):
            return False
        pin_version(&self.state)
        return True

    def unpin(self):
        if atomic_load(&self.state.num_pins) <= 0:
            raise RuntimeError(f"{self.name} version {self.version} is not pinned")
        unpin_version(&self.state)

    def close(self):
        if self.state.drained_fd < 0:
            self.state.drained_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
            if self.state.drained_fd < 0:
                raise OSError("eventfd failed: too many open files?")
        atomic_store(&self.state.is_closed, 1)
        if atomic_load(&self.state.num_pins) == 0:
            eventfd_write(self.state.drained_fd, 1)

    cdef ReplicaSet* swap_replicas(self, replicas) except? NULL:
        cdef list wanted = list(replicas)
        cdef ReplicaSet* made = NULL
        cdef int i
        if wanted:
            made = <ReplicaSet*>malloc(sizeof(ReplicaSet) + len(wanted) * sizeof(Replica))
            if made is NULL:
                raise MemoryError
            made.num_replicas = <int>len(wanted)
            made.replicas = <Replica*>(made + 1)
            try:
                for i, (worker, servable_handle) in enumerate(wanted):
                    made.replicas[i].worker = worker
                    made.replicas[i].servable_handle = servable_handle
            except BaseException:
                free(made)
                raise
        return <ReplicaSet*>swap_pointer(&self.state.replicas, made)


cdef void _free_snapshot(RouteSnapshot* snapshot) noexcept:
    cdef ModelRoutes* model
    cdef int i, k
    for i in range(snapshot.num_models):
        model = &snapshot.models[i]
        for k in range(model.num_labels):
            free(model.labels[k].name)
        free(model.labels)
        free(model.versions)
        free(model.name)
    free(snapshot.models)


cdef class Routes:
    def __cinit__(self, models):
        cdef ModelRoutes* model
        cdef PublishedVersion each
        cdef bytes utf8
        cdef list kept = []
        # As _compare_names has it: size first, then bytes.
        ordered = sorted(
            ((name.encode(), versions, labels) for name, (versions, labels) in models.items()),
            key=lambda entry: (len(entry[0]), entry[0]))
        self.versions = ()
        self.snapshot.models = <ModelRoutes*>calloc(len(ordered) + 1, sizeof(ModelRoutes))
        if self.snapshot.models is NULL:
            raise MemoryError
        for utf8, versions, labels in ordered:
            # Counted at once, so that what is there so far is freed if the rest fails.
            model = &self.snapshot.models[self.snapshot.num_models]
            self.snapshot.num_models += 1
            model.name = _copy_of(utf8)
            model.name_size = <size_t>len(utf8)
            versions = sorted(versions, key=lambda version: version.version, reverse=True)
            model.versions = <VersionState**>calloc(len(versions) + 1, sizeof(VersionState*))
            model.labels = <Label*>calloc(len(labels) + 1, sizeof(Label))
            if model.versions is NULL or model.labels is NULL:
                raise MemoryError
            for each in versions:
                kept.append(each)
                model.versions[model.num_versions] = &each.state
                model.num_versions += 1
            for label, version in labels.items():
                utf8 = label.encode()
                model.labels[model.num_labels].version = version
                model.labels[model.num_labels].name = _copy_of(utf8)
                model.labels[model.num_labels].name_size = <size_t>len(utf8)
                model.num_labels += 1
        self.versions = tuple(kept)

    def __dealloc__(self):
        _free_snapshot(&self.snapshot)

    def resolve(self, request):
        cdef Py_buffer buffer
        cdef ModelSpecView spec
        cdef ByteWriter message
        cdef PublishedVersion each
        cdef VersionState* found
        cdef int code = 0
        PyObject_GetBuffer(request, &buffer, PyBUF_SIMPLE)
        writer_init(&message)
        try:
            if not scan_model_spec_view(<const uint8_t*>buffer.buf, <size_t>buffer.len, 1, &spec):
                raise ValueError("not a well-formed message")
            with nogil:
                found = resolve_route(&self.snapshot, &spec, &code, &message)
            if found is NULL:
                return None, code, PyBytes_FromStringAndSize(<const char*>message.data, <Py_ssize_t>message.size)
            for each in self.versions:
                if &each.state == found:
                    return each, code, b""
            raise AssertionError("the snapshot has a version that is not its own")
        finally:
            writer_free(&message)
            PyBuffer_Release(&buffer)
