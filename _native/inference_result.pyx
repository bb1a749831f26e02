"""Checks what a run over examples put out, in TensorFlow Serving's order, and encodes labels, scores and values.

Last step of Classify, Regress and MultiInference in the worker (read → plan → run → encode); runs on execution threads
without the GIL. As protobuf has it, a label that is empty and a number whose bits are all zero are not written.

Source: upstream's PostProcessClassificationResult and PostProcessRegressionResult; tensorflow_serving/apis/
classification.proto and regression.proto.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t

from tensorgate._native.byte_writer cimport ByteWriter, put_bytes, put_decimal, put_varint, writer_reserve
from tensorgate._native.example_run cimport ExampleRun, output_of
from tensorgate._native.inference_plan cimport InferencePlan
from tensorgate._native.predict_binding cimport say
from tensorgate._native.proto_wire cimport WIRE_BYTES, WIRE_FIXED32
from tensorgate._native.response_encode cimport field_size, put_tag
from tensorgate._native.status_codes cimport INVALID_ARGUMENT, OK
from tensorgate._native.tf_c_api cimport DT_FLOAT, DT_STRING, TF_Tensor, TF_TString, tf

cdef enum:
    NUM_DTYPES = 34

# By number, as tensorflow/core/framework/types.proto has them; the bytes live as long as the module.
cdef const char* DTYPE_NAMES[NUM_DTYPES]

_names = tuple(b"DT_" + name for name in (
    b"INVALID", b"FLOAT", b"DOUBLE", b"INT32", b"UINT8", b"INT16", b"INT8", b"STRING", b"COMPLEX64", b"INT64", b"BOOL",
    b"QINT8", b"QUINT8", b"QINT32", b"BFLOAT16", b"QINT16", b"QUINT16", b"UINT16", b"COMPLEX128", b"HALF", b"RESOURCE",
    b"VARIANT", b"UINT32", b"UINT64", b"FLOAT8_E5M2", b"FLOAT8_E4M3FN", b"FLOAT8_E4M3FNUZ", b"FLOAT8_E4M3B11FNUZ",
    b"FLOAT8_E5M2FNUZ", b"INT4", b"UINT4", b"INT2", b"UINT2", b"FLOAT4_E2M1FN",
))
for _number in range(NUM_DTYPES):
    DTYPE_NAMES[_number] = _names[_number]


# --- checks -----------------------------------------------------------------------------------------------------------

cdef void _say_shape(ByteWriter* message, TF_Tensor* tensor) noexcept nogil:
    cdef int i
    say(message, "[")
    for i in range(tf.NumDims(tensor)):
        if i:
            say(message, ",")
        put_decimal(message, tf.Dim(tensor, i))
    say(message, "]")


cdef int _refuse_dtype(ByteWriter* message, const char* expectation, TF_Tensor* tensor) noexcept nogil:
    cdef int dtype = tf.TensorType(tensor)
    say(message, expectation)
    if 0 <= dtype < NUM_DTYPES:
        say(message, DTYPE_NAMES[dtype])
    return INVALID_ARGUMENT


cdef int _refuse_numbers(
    ByteWriter* message, const char* expectation, int64_t expected, const char* between, int64_t found,
) noexcept nogil:
    say(message, expectation)
    put_decimal(message, expected)
    say(message, between)
    put_decimal(message, found)
    return INVALID_ARGUMENT


cdef int _check_classification(
    TF_Tensor* tensor, int dtype, const char* wrong_dtype, const char* wrong_batch, int64_t num_examples,
    ByteWriter* message,
) noexcept nogil:
    if tf.NumDims(tensor) != 2:
        say(message, "Expected Tensor shape: [batch_size num_classes] but got ")
        _say_shape(message, tensor)
        return INVALID_ARGUMENT
    if tf.TensorType(tensor) != dtype:
        return _refuse_dtype(message, wrong_dtype, tensor)
    if tf.Dim(tensor, 0) != num_examples:
        return _refuse_numbers(message, wrong_batch, num_examples, ". Got: ", tf.Dim(tensor, 0))
    return OK


cdef int _check_regression(TF_Tensor* tensor, int64_t num_examples, ByteWriter* message) noexcept nogil:
    cdef int num_dims = tf.NumDims(tensor)
    if num_dims != 1 and (num_dims != 2 or tf.Dim(tensor, 1) != 1):
        say(message, "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got ")
        _say_shape(message, tensor)
        return INVALID_ARGUMENT
    if tf.Dim(tensor, 0) != num_examples:
        return _refuse_numbers(
            message, "Input batch size did not match output batch size: ", num_examples, " vs. ", tf.Dim(tensor, 0))
    if tf.TensorType(tensor) != DT_FLOAT:
        return _refuse_dtype(message, "Expected output Tensor of DT_FLOAT.  Got: ", tensor)
    return OK


# --- encoding ---------------------------------------------------------------------------------------------------------

cdef struct Classes:
    # Row by row, num_rows times num_classes of each; NULL for those that the signature does not put out.
    const TF_TString* labels
    const uint32_t* scores   # the bits of floats
    size_t num_rows
    size_t num_classes


cdef inline size_t _class_size(const Classes* classes, size_t i) noexcept nogil:
    cdef size_t label_size = 0, size = 0
    if classes.labels is not NULL:
        label_size = tf.StringGetSize(&classes.labels[i])
        if label_size:
            size += field_size(1, label_size)
    if classes.scores is not NULL and classes.scores[i]:
        size += 5
    return size


cdef size_t _row_size(const Classes* classes, size_t row) noexcept nogil:
    cdef size_t size = 0, i
    for i in range(row * classes.num_classes, (row + 1) * classes.num_classes):
        size += field_size(1, _class_size(classes, i))
    return size


cdef void _put_float(ByteWriter* out, uint32_t field, uint32_t bits) noexcept nogil:
    if bits:
        put_tag(out, field, WIRE_FIXED32)
        put_bytes(out, &bits, 4)


cdef void _put_row(ByteWriter* out, const Classes* classes, size_t row) noexcept nogil:
    cdef size_t label_size, i
    put_tag(out, 1, WIRE_BYTES)
    put_varint(out, _row_size(classes, row))
    for i in range(row * classes.num_classes, (row + 1) * classes.num_classes):
        put_tag(out, 1, WIRE_BYTES)
        put_varint(out, _class_size(classes, i))
        if classes.labels is not NULL:
            label_size = tf.StringGetSize(&classes.labels[i])
            if label_size:
                put_tag(out, 1, WIRE_BYTES)
                put_varint(out, label_size)
                put_bytes(out, tf.StringGetDataPointer(&classes.labels[i]), label_size)
        if classes.scores is not NULL:
            _put_float(out, 2, classes.scores[i])


cdef void _put_classes(ByteWriter* out, uint32_t field, const Classes* classes) noexcept nogil:
    cdef size_t size = 0, row
    for row in range(classes.num_rows):
        size += field_size(1, _row_size(classes, row))
    # One allocation; the puts below then only copy.
    if not writer_reserve(out, field_size(field, size) + 16):
        return
    put_tag(out, field, WIRE_BYTES)
    put_varint(out, size)
    for row in range(classes.num_rows):
        _put_row(out, classes, row)


cdef int put_classification(
    ByteWriter* out, uint32_t field, const ExampleRun* run, const InferencePlan* plan, ByteWriter* message,
) noexcept nogil:
    cdef TF_Tensor* labels = NULL
    cdef TF_Tensor* scores = NULL
    cdef Classes classes
    cdef int code
    if plan.classes is not NULL:
        labels = output_of(run, plan.classes)
        code = _check_classification(
            labels, DT_STRING, "Expected classes Tensor of DT_STRING. Got: ", "Expected classes output batch size of ",
            run.num_examples, message)
        if code != OK:
            return code
    if plan.scores is not NULL:
        scores = output_of(run, plan.scores)
        code = _check_classification(
            scores, DT_FLOAT, "Expected scores Tensor of DT_FLOAT. Got: ", "Expected scores output batch size of ",
            run.num_examples, message)
        if code != OK:
            return code
    if labels is not NULL and scores is not NULL and tf.Dim(labels, 1) != tf.Dim(scores, 1):
        return _refuse_numbers(
            message, "Tensors class and score should match in dim_size(1). Got ", tf.Dim(labels, 1), " vs. ",
            tf.Dim(scores, 1))
    classes.labels = NULL if labels is NULL else <const TF_TString*>tf.TensorData(labels)
    classes.scores = NULL if scores is NULL else <const uint32_t*>tf.TensorData(scores)
    classes.num_rows = <size_t>run.num_examples
    classes.num_classes = <size_t>tf.Dim(scores if labels is NULL else labels, 1)
    _put_classes(out, field, &classes)
    return OK


cdef int put_regression(
    ByteWriter* out, uint32_t field, const ExampleRun* run, const InferencePlan* plan, ByteWriter* message,
) noexcept nogil:
    cdef TF_Tensor* tensor = output_of(run, plan.value)
    cdef const uint32_t* values
    cdef size_t num_values = <size_t>run.num_examples, size = 0, i
    cdef int code = _check_regression(tensor, run.num_examples, message)
    if code != OK:
        return code
    values = <const uint32_t*>tf.TensorData(tensor)
    for i in range(num_values):
        size += 7 if values[i] else 2
    if not writer_reserve(out, field_size(field, size) + 16):
        return OK
    put_tag(out, field, WIRE_BYTES)
    put_varint(out, size)
    for i in range(num_values):
        put_tag(out, 1, WIRE_BYTES)
        put_varint(out, 5 if values[i] else 0)
        _put_float(out, 1, values[i])
    return OK
