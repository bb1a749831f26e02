"""Reads a serialized Input in place, and makes the string tensor that a model's Example parser takes.

First step of Classify, Regress and MultiInference in the worker (read → plan → run → encode); runs on execution threads
without the GIL. Every byte is walked, so that a malformed Example is refused as the message parser would refuse it,
before anything is allocated for tensors. The examples are not parsed beyond that, nor written anew: the model gets the
client's own bytes.

Source: tensorflow_serving/apis/input.proto, internal/serialized_input.proto; tensorflow/core/example/example.proto and
feature.proto; protobuf's merge rules.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from tensorgate._native.byte_writer cimport (
    ByteWriter,
    put_bytes,
    writer_free,
    writer_init,
    writer_reserve,
)
from tensorgate._native.predict_binding cimport say
from tensorgate._native.predict_request cimport SCAN_MALFORMED, SCAN_NO_MEMORY, SCANNED, ScanOutcome, Slice, slice_of
from tensorgate._native.proto_wire cimport (
    ProtoReader,
    bytes_left,
    is_utf8,
    next_bytes_field,
    read_varint,
    reader_of,
)
from tensorgate._native.status_codes cimport INVALID_ARGUMENT, OK, RESOURCE_EXHAUSTED
from tensorgate._native.string_tensors cimport new_string_tensor
from tensorgate._native.tensor_decode cimport MAX_TENSOR_BYTES
from tensorgate._native.tf_c_api cimport TF_Tensor, TF_TString, tf

cdef enum:
    # Members of Input's oneof.
    EXAMPLE_LIST = 1
    EXAMPLE_LIST_WITH_CONTEXT = 2
    # Members of Feature's oneof.
    BYTES_LIST = 1
    FLOAT_LIST = 2
    INT64_LIST = 3
    # Messages inside an Example, from the outside in.
    LEVEL_EXAMPLE = 0
    LEVEL_FEATURES = 1
    LEVEL_ENTRY = 2
    LEVEL_FEATURE = 3


# --- examples ---------------------------------------------------------------------------------------------------------

cdef bint _check_list(ProtoReader body, uint32_t kind) noexcept nogil:
    """A BytesList, FloatList or Int64List."""
    cdef uint32_t field
    cdef uint64_t ignored
    cdef ProtoReader packed
    while next_bytes_field(&body, &field, &packed):
        if field != 1:
            continue
        if kind == FLOAT_LIST and bytes_left(&packed) % 4:
            return False
        if kind == INT64_LIST:
            while bytes_left(&packed):
                if not read_varint(&packed, &ignored):
                    return False
    return bytes_left(&body) == 0


cdef bint _check_message(ProtoReader body, int level) noexcept nogil:
    """An Example, its Features, an entry of their map, or a Feature; with all that is inside it."""
    cdef uint32_t field
    cdef ProtoReader inner
    cdef bint good
    while next_bytes_field(&body, &field, &inner):
        good = True
        if level == LEVEL_FEATURE:
            if field == BYTES_LIST or field == FLOAT_LIST or field == INT64_LIST:
                good = _check_list(inner, field)
        elif level == LEVEL_ENTRY:
            if field == 1:
                good = is_utf8(inner.pos, bytes_left(&inner))
            elif field == 2:
                good = _check_message(inner, LEVEL_FEATURE)
        elif field == 1:
            good = _check_message(inner, level + 1)
        if not good:
            return False
    return bytes_left(&body) == 0


# --- Input ------------------------------------------------------------------------------------------------------------

cdef ScanOutcome _add_example(ProtoReader body, ExampleInput* input) noexcept nogil:
    cdef size_t capacity
    cdef void* grown
    if not _check_message(body, LEVEL_EXAMPLE):
        return SCAN_MALFORMED
    if input.num_examples == input.capacity:
        # A tensor that could not hold them all is not asked for.
        if input.num_examples >= MAX_TENSOR_BYTES // sizeof(TF_TString):
            return SCAN_NO_MEMORY
        capacity = 2 * input.capacity + 4
        grown = realloc(input.examples, capacity * sizeof(Slice))
        if grown is NULL:
            return SCAN_NO_MEMORY
        input.examples = <Slice*>grown
        input.capacity = capacity
    input.examples[input.num_examples] = slice_of(body.pos, bytes_left(&body))
    input.num_examples += 1
    return SCANNED


cdef ScanOutcome _merge_list(ProtoReader body, ExampleInput* input) noexcept nogil:
    """An ExampleList or ExampleListWithContext, as input.kind says."""
    cdef uint32_t field
    cdef ProtoReader inner
    cdef ScanOutcome outcome
    while next_bytes_field(&body, &field, &inner):
        if field == 1:
            outcome = _add_example(inner, input)
            if outcome != SCANNED:
                return outcome
        elif field == 2 and input.kind == EXAMPLE_LIST_WITH_CONTEXT:
            if not _check_message(inner, LEVEL_EXAMPLE):
                return SCAN_MALFORMED
            # To merge two messages is to append the one's bytes to the other's.
            put_bytes(&input.context, inner.pos, bytes_left(&inner))
            if input.context.failed:
                return SCAN_NO_MEMORY
    return SCAN_MALFORMED if bytes_left(&body) else SCANNED


cdef ScanOutcome merge_example_input(ProtoReader body, ExampleInput* input) noexcept nogil:
    cdef uint32_t field
    cdef ProtoReader inner
    cdef ScanOutcome outcome
    while next_bytes_field(&body, &field, &inner):
        if field != EXAMPLE_LIST and field != EXAMPLE_LIST_WITH_CONTEXT:
            continue
        if input.kind != field:
            # A oneof's member displaces the other.
            input.kind = field
            input.num_examples = 0
            input.context.size = 0
        outcome = _merge_list(inner, input)
        if outcome != SCANNED:
            return outcome
    return SCAN_MALFORMED if bytes_left(&body) else SCANNED


cdef void example_input_free(ExampleInput* input) noexcept nogil:
    free(input.examples)
    input.examples = NULL
    input.num_examples = 0
    writer_free(&input.context)


# --- the tensor -------------------------------------------------------------------------------------------------------

cdef bint _join(const ExampleInput* input, TF_TString* strings) noexcept nogil:
    """Each example behind the context, in one buffer that has the context written once. False: out of memory."""
    cdef ByteWriter joined
    cdef size_t largest = 0, i
    for i in range(input.num_examples):
        largest = max(largest, input.examples[i].size)
    writer_init(&joined)
    if not writer_reserve(&joined, input.context.size + largest):
        return False
    put_bytes(&joined, input.context.data, input.context.size)
    for i in range(input.num_examples):
        put_bytes(&joined, input.examples[i].data, input.examples[i].size)
        tf.StringCopy(&strings[i], <const char*>joined.data, joined.size)
        joined.size = input.context.size
    writer_free(&joined)
    return True


cdef int check_examples(const ExampleInput* input, ByteWriter* message) noexcept nogil:
    if input.num_examples == 0:
        say(message, "Input is empty.")
        return INVALID_ARGUMENT
    # The context counts once for each example: a small request must not ask for any amount of memory.
    if input.context.size > MAX_TENSOR_BYTES // input.num_examples:
        say(message, "the examples, each with the context, are larger than a tensor may be (2 GiB)")
        return RESOURCE_EXHAUSTED
    return OK


cdef bint write_examples(const ExampleInput* input, TF_TString* strings) noexcept nogil:
    cdef size_t i
    if input.context.size:
        return _join(input, strings)
    for i in range(input.num_examples):
        tf.StringCopy(&strings[i], <const char*>input.examples[i].data, input.examples[i].size)
    return True


cdef int make_example_tensor(const ExampleInput* input, TF_Tensor** tensor, ByteWriter* message) noexcept nogil:
    cdef int64_t num_examples = <int64_t>input.num_examples
    cdef int code = check_examples(input, message)
    tensor[0] = NULL
    if code != OK:
        return code
    tensor[0] = new_string_tensor(&num_examples, 1, input.num_examples)
    if tensor[0] is not NULL:
        if write_examples(input, <TF_TString*>tf.TensorData(tensor[0])):
            return OK
        tf.DeleteTensor(tensor[0])
        tensor[0] = NULL
    say(message, "not enough memory for the examples")
    return RESOURCE_EXHAUSTED


# --- for tests --------------------------------------------------------------------------------------------------------

def examples_of(message):
    cdef Py_buffer buffer
    cdef ExampleInput scanned
    cdef TF_Tensor* tensor = NULL
    cdef TF_TString* strings
    cdef ByteWriter text
    cdef ScanOutcome outcome
    cdef int code
    cdef size_t i
    if tf.TensorData is NULL:
        raise RuntimeError("tf_c_api.load_library() comes first")
    PyObject_GetBuffer(message, &buffer, PyBUF_SIMPLE)
    memset(&scanned, 0, sizeof(ExampleInput))
    writer_init(&text)
    try:
        with nogil:
            outcome = merge_example_input(reader_of(<const uint8_t*>buffer.buf, <size_t>buffer.len), &scanned)
        if outcome == SCAN_NO_MEMORY:
            raise MemoryError
        if outcome != SCANNED:
            raise ValueError("malformed")
        with nogil:
            code = make_example_tensor(&scanned, &tensor, &text)
        if code != OK:
            raise ValueError(text.data[:text.size].decode())
        strings = <TF_TString*>tf.TensorData(tensor)
        return [
            PyBytes_FromStringAndSize(
                tf.StringGetDataPointer(&strings[i]), <Py_ssize_t>tf.StringGetSize(&strings[i]))
            for i in range(scanned.num_examples)
        ]
    finally:
        if tensor is not NULL:
            tf.DeleteTensor(tensor)
        example_input_free(&scanned)
        writer_free(&text)
        PyBuffer_Release(&buffer)
