"""Scans what the gateway needs out of a request's bytes (its model_spec), and signatures out of a MetaGraphDef.

First step of a request in the gateway (edge → model_spec → route), and again in the worker, which echoes the spec.
Only the message's outer fields are walked: a tensor of any size is stepped over, never read. Any thread.

Source: tensorflow_serving/apis/model.proto and predict.proto (field numbers); protobuf's merge rules.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset, strlen

from tensorgate._native.byte_writer cimport ByteWriter, put_byte, put_bytes, put_varint, writer_free, writer_init
from tensorgate._native.proto_wire cimport (
    WIRE_BYTES,
    WIRE_VARINT,
    ProtoReader,
    bytes_left,
    is_utf8,
    read_bytes,
    read_tag,
    read_varint,
    reader_of,
    skip_field,
)


class ScanError(ValueError):
    """The bytes are not a well-formed protobuf message."""


cdef bint _merge_int64_value(ProtoReader body, int64_t* value) noexcept nogil:
    """google.protobuf.Int64Value: field 1 is the number; absent means that it stays as it is."""
    cdef uint32_t field, wire_type
    cdef uint64_t number
    while bytes_left(&body):
        if not read_tag(&body, &field, &wire_type):
            return False
        if field == 1 and wire_type == WIRE_VARINT:
            if not read_varint(&body, &number):
                return False
            value[0] = <int64_t>number
        elif not skip_field(&body, field, wire_type):
            return False
    return True


cdef bint merge_model_spec(ProtoReader body, ModelSpecView* view) noexcept nogil:
    """Merges one serialized ModelSpec into view; the members of the version_choice oneof displace each other."""
    cdef uint32_t field, wire_type
    cdef ProtoReader inner
    view.present = True
    while bytes_left(&body):
        if not read_tag(&body, &field, &wire_type):
            return False
        if wire_type != WIRE_BYTES or field > 4:
            if not skip_field(&body, field, wire_type):
                return False
            continue
        if not read_bytes(&body, &inner):
            return False
        if field == 2:
            if view.version_choice != VERSION_NUMBER:
                view.version_choice = VERSION_NUMBER
                view.version = 0
            if not _merge_int64_value(inner, &view.version):
                return False
            continue
        if not is_utf8(inner.pos, bytes_left(&inner)):
            return False
        if field == 1:
            view.name = inner.pos
            view.name_size = bytes_left(&inner)
        elif field == 3:
            view.signature_name = inner.pos
            view.signature_name_size = bytes_left(&inner)
        else:
            view.version_choice = VERSION_LABEL
            view.version_label = inner.pos
            view.version_label_size = bytes_left(&inner)
    return True


cdef bint scan_model_spec_view(const uint8_t* data, size_t size, uint32_t field, ModelSpecView* view) noexcept nogil:
    cdef ProtoReader reader = reader_of(data, size)
    cdef ProtoReader body
    cdef uint32_t found, wire_type
    memset(view, 0, sizeof(ModelSpecView))
    while bytes_left(&reader):
        if not read_tag(&reader, &found, &wire_type):
            return False
        if found == field and wire_type == WIRE_BYTES:
            if not read_bytes(&reader, &body) or not merge_model_spec(body, view):
                return False
        elif not skip_field(&reader, found, wire_type):
            return False
    return True


cdef inline str _text(const uint8_t* data, size_t size):
    return "" if size == 0 else data[:size].decode("utf-8")


cdef bint scan_task_spec_view(const uint8_t* data, size_t size, ModelSpecView* view) noexcept nogil:
    cdef ProtoReader reader = reader_of(data, size)
    cdef ProtoReader body
    cdef uint32_t field, wire_type
    cdef bint found = False
    memset(view, 0, sizeof(ModelSpecView))
    while bytes_left(&reader):
        if not read_tag(&reader, &field, &wire_type):
            return False
        if field != 1 or wire_type != WIRE_BYTES or found:
            if not skip_field(&reader, field, wire_type):
                return False
        elif not read_bytes(&reader, &body) or not scan_model_spec_view(body.pos, bytes_left(&body), 1, view):
            return False
        else:
            found = True
    return True


cdef _told(const ModelSpecView* view):
    return (
        _text(view.name, view.name_size) if view.present else None,
        view.version if view.version_choice == VERSION_NUMBER else None,
        _text(view.version_label, view.version_label_size) if view.version_choice == VERSION_LABEL else None,
        _text(view.signature_name, view.signature_name_size),
    )


def scan_model_spec(message, uint32_t field=1):
    cdef Py_buffer buffer
    cdef ModelSpecView view
    cdef bint good
    PyObject_GetBuffer(message, &buffer, PyBUF_SIMPLE)
    try:
        with nogil:
            good = scan_model_spec_view(<const uint8_t*>buffer.buf, <size_t>buffer.len, field, &view)
        if not good:
            raise ScanError("the request is not a well-formed protobuf message")
        return _told(&view)
    finally:
        PyBuffer_Release(&buffer)


def scan_task_model_spec(message):
    cdef Py_buffer buffer
    cdef ModelSpecView view
    cdef bint good
    PyObject_GetBuffer(message, &buffer, PyBUF_SIMPLE)
    try:
        with nogil:
            good = scan_task_spec_view(<const uint8_t*>buffer.buf, <size_t>buffer.len, &view)
        if not good:
            raise ScanError("the request is not a well-formed protobuf message")
        return _told(&view)
    finally:
        PyBuffer_Release(&buffer)


cdef bint _collect_signature_defs(ProtoReader reader, ByteWriter* out) noexcept nogil:
    """Copies each entry of MetaGraphDef.signature_def (map, field 5) under tag 1, SignatureDefMap.signature_def."""
    cdef uint32_t field, wire_type
    cdef ProtoReader entry
    while bytes_left(&reader):
        if not read_tag(&reader, &field, &wire_type):
            return False
        if field == 5 and wire_type == WIRE_BYTES:
            if not read_bytes(&reader, &entry):
                return False
            put_byte(out, (1 << 3) | WIRE_BYTES)
            put_varint(out, bytes_left(&entry))
            put_bytes(out, entry.pos, bytes_left(&entry))
        elif not skip_field(&reader, field, wire_type):
            return False
    return True


def signature_def_map(meta_graph):
    cdef Py_buffer buffer
    cdef ByteWriter out
    cdef bint good
    PyObject_GetBuffer(meta_graph, &buffer, PyBUF_SIMPLE)
    writer_init(&out)
    try:
        with nogil:
            good = _collect_signature_defs(reader_of(<const uint8_t*>buffer.buf, <size_t>buffer.len), &out)
        if not good:
            raise ScanError("the MetaGraphDef is not a well-formed protobuf message")
        if out.failed:
            raise MemoryError
        return PyBytes_FromStringAndSize(<const char*>out.data, <Py_ssize_t>out.size)
    finally:
        writer_free(&out)
        PyBuffer_Release(&buffer)


# --- ops of a graph ---------------------------------------------------------------------------------------------------

# Parts of the names of ops that may run for any time, whatever the size of the graph: loops, and waiting for others.
cdef const char** UNBOUNDED = [
    "While", "Enter", "NextIteration", "LoopCond", "PyFunc", "Dequeue", "Enqueue", "Barrier", "IteratorGetNext",
    "MapDefun", "BatchFunction", "Unbatch", "Recv", "Collective", "RemoteCall", "Stage", "Mutex", "Sleep", "For",
]
cdef int NUM_UNBOUNDED = 19


cdef bint _contains(ProtoReader text, const char* part) noexcept nogil:
    cdef size_t size = strlen(part)
    while bytes_left(&text) >= size:
        if memcmp(text.pos, part, size) == 0:
            return True
        text.pos += 1
    return False


cdef int _nodes_unbounded(ProtoReader reader, uint32_t node_field) noexcept nogil:
    """1 when one of the NodeDefs in that field has such an op, 0 when none has, -1 for malformed bytes."""
    cdef uint32_t field, wire_type
    cdef ProtoReader node, op
    cdef int i
    while bytes_left(&reader):
        if not read_tag(&reader, &field, &wire_type):
            return -1
        if field != node_field or wire_type != WIRE_BYTES:
            if not skip_field(&reader, field, wire_type):
                return -1
            continue
        if not read_bytes(&reader, &node):
            return -1
        while bytes_left(&node):
            if not read_tag(&node, &field, &wire_type):
                return -1
            if field != 2 or wire_type != WIRE_BYTES:  # NodeDef.op
                if not skip_field(&node, field, wire_type):
                    return -1
                continue
            if not read_bytes(&node, &op):
                return -1
            for i in range(NUM_UNBOUNDED):
                if _contains(op, UNBOUNDED[i]):
                    return 1
    return 0


cdef int _children_unbounded(ProtoReader reader, uint32_t child_field, int depth) noexcept nogil:
    """The same for the functions of a library (depth 0), a graph (depth 1), the graphs of a MetaGraphDef (depth 2)."""
    cdef uint32_t field, wire_type
    cdef ProtoReader child
    cdef int found
    while bytes_left(&reader):
        if not read_tag(&reader, &field, &wire_type):
            return -1
        if field != child_field or wire_type != WIRE_BYTES:
            if not skip_field(&reader, field, wire_type):
                return -1
            continue
        if not read_bytes(&reader, &child):
            return -1
        if depth == 0:  # FunctionDef.node_def
            found = _nodes_unbounded(child, 3)
        elif depth == 1:  # FunctionDefLibrary.function
            found = _children_unbounded(child, 1, 0)
        else:  # GraphDef.node, GraphDef.library
            found = _nodes_unbounded(child, 1)
            if found == 0:
                found = _children_unbounded(child, 2, 1)
        if found:
            return found
    return 0


def may_run_long(meta_graph):
    cdef Py_buffer buffer
    cdef int found
    PyObject_GetBuffer(meta_graph, &buffer, PyBUF_SIMPLE)
    try:
        with nogil:
            # MetaGraphDef.graph_def
            found = _children_unbounded(reader_of(<const uint8_t*>buffer.buf, <size_t>buffer.len), 2, 2)
        if found < 0:
            raise ScanError("the MetaGraphDef is not a well-formed protobuf message")
        return found == 1
    finally:
        PyBuffer_Release(&buffer)
