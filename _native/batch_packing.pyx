"""Packs the inputs of merged requests into one tensor each, and finds each request's rows in what came out.

Part of a batch's way in the worker (queue → pack → run → split); on execution threads, without the GIL. Values go from
a request's bytes straight to their place in the batch, unless their rows have to be padded.

Source: upstream's batching_session and batching_util (what is padded, and with what); our own is what is cut back.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from tensorgate._native.batch_buffers cimport buffer_data, buffer_give_back, buffer_take, buffer_to_tensor
from tensorgate._native.batch_state cimport (
    MAX_BATCH_RANK,
    Batch,
    BatchInput,
    BatchOutputs,
    BatchSlice,
    BatchTask,
    Buffer,
)
from tensorgate._native.example_input cimport write_examples
from tensorgate._native.predict_binding cimport say
from tensorgate._native.status_codes cimport INTERNAL, OK, RESOURCE_EXHAUSTED
from tensorgate._native.string_tensors cimport new_string_tensor
from tensorgate._native.tensor_decode cimport MAX_TENSOR_BYTES, decode_values
from tensorgate._native.tf_c_api cimport DT_STRING, TF_TString, tf


# --- elements ---------------------------------------------------------------------------------------------------------

cdef size_t _product(const int64_t* dims, int begin, int end) noexcept nogil:
    """Of dims whose tensor has been found to fit into memory."""
    cdef size_t product = 1
    cdef int i
    for i in range(begin, end):
        product *= <size_t>dims[i]
    return product


cdef bint fits_into_tensor(const int64_t* dims, int num_dims, size_t element_size) noexcept nogil:
    cdef size_t size = element_size
    cdef int i
    for i in range(num_dims):
        if dims[i] > 0 and size > MAX_TENSOR_BYTES // <size_t>dims[i]:
            return False
        size *= <size_t>dims[i]
    return True


cdef void _copy_elements(
    bint is_string, uint8_t* target, const uint8_t* source, size_t count, size_t element_size,
) noexcept nogil:
    cdef TF_TString* strings = <TF_TString*>target
    cdef const TF_TString* others = <const TF_TString*>source
    cdef size_t i
    if not is_string:
        memcpy(target, source, count * element_size)
        return
    for i in range(count):
        tf.StringCopy(&strings[i], tf.StringGetDataPointer(&others[i]), tf.StringGetSize(&others[i]))


cdef void _fill_elements(
    bint is_string, uint8_t* target, const uint8_t* element, size_t size, size_t count, size_t element_size,
) noexcept nogil:
    """size: of the element, or of the string whose bytes it is."""
    cdef TF_TString* strings = <TF_TString*>target
    cdef size_t done, i
    if count == 0:
        return
    if is_string:
        for i in range(count):
            tf.StringCopy(&strings[i], <const char*>element, size)
        return
    memcpy(target, element, element_size)
    done = 1
    while done < count:  # doubling
        memcpy(target + done * element_size, target, min(done, count - done) * element_size)
        done += min(done, count - done)


cdef size_t _place(const int64_t* outer, int num_dims, size_t line, const int64_t* inner) noexcept nogil:
    """Where a line of the smaller tensor (its last dimension) begins in the larger one; in elements."""
    cdef size_t place = 0, stride = <size_t>outer[num_dims - 1]
    cdef int d = num_dims - 2
    while d >= 0:
        place += (line % <size_t>inner[d]) * stride
        line //= <size_t>inner[d]
        stride *= <size_t>outer[d]
        d -= 1
    return place


# --- in ---------------------------------------------------------------------------------------------------------------

cdef bint _decode(const BatchInput* input, uint8_t* target) noexcept nogil:
    """All elements; False: out of memory."""
    if input.examples is not NULL:
        return write_examples(input.examples, <TF_TString*>target)
    decode_values(&input.values, target)
    return True


cdef uint8_t* _new_elements(const BatchInput* input) noexcept nogil:
    """Room for them all, zeroed, which is an empty string too; NULL: out of memory."""
    cdef TF_TString* strings
    cdef uint8_t* memory = <uint8_t*>calloc(input.values.num_elements + 1, input.values.element_size)
    cdef size_t i
    if memory is not NULL and input.values.dtype == DT_STRING:
        strings = <TF_TString*>memory
        for i in range(input.values.num_elements):
            tf.StringInit(&strings[i])
    return memory


cdef void _free_elements(const BatchInput* input, uint8_t* memory) noexcept nogil:
    cdef TF_TString* strings = <TF_TString*>memory
    cdef size_t i
    if memory is not NULL and input.values.dtype == DT_STRING:
        for i in range(input.values.num_elements):
            tf.StringDealloc(&strings[i])
    free(memory)


cdef bint unpack_inputs(BatchTask* task) noexcept nogil:
    cdef BatchInput* input
    cdef int i
    for i in range(task.num_inputs):
        input = &task.inputs[i]
        input.unpacked = _new_elements(input)
        if input.unpacked is NULL or not _decode(input, input.unpacked):
            return False
    return True


cdef void free_unpacked(BatchTask* task) noexcept nogil:
    cdef int i
    for i in range(task.num_inputs):
        _free_elements(&task.inputs[i], task.inputs[i].unpacked)
        task.inputs[i].unpacked = NULL


cdef bint _pack_padded(
    const BatchInput* input, const BatchSlice* slice, const int64_t* largest, uint8_t* target,
) noexcept nogil:
    """Rows that are smaller than those of the batch. False: out of memory."""
    cdef size_t element_size = input.values.element_size
    cdef bint is_string = input.values.dtype == DT_STRING
    cdef size_t row = _product(input.dims, 1, input.num_dims)
    cdef size_t line = <size_t>input.dims[input.num_dims - 1]
    cdef size_t count = <size_t>slice.num_rows * _product(largest, 1, input.num_dims)
    cdef uint8_t* decoded = NULL
    cdef const uint8_t* source = input.unpacked
    cdef size_t num_lines, i
    if source is NULL:
        decoded = _new_elements(input)
        if decoded is NULL or not _decode(input, decoded):
            _free_elements(input, decoded)
            return False
        source = decoded
    source += <size_t>slice.first_row * row * element_size
    if input.endpoint.pad_value is not NULL:
        _fill_elements(
            is_string, target, input.endpoint.pad_value, input.endpoint.pad_size, count, element_size)
    elif is_string:
        _fill_elements(
            True, target, <const uint8_t*>tf.StringGetDataPointer(<const TF_TString*>source),
            tf.StringGetSize(<const TF_TString*>source), count, element_size)
    else:
        _fill_elements(False, target, source, element_size, count, element_size)
    num_lines = <size_t>slice.num_rows * row // line
    for i in range(num_lines):
        _copy_elements(
            is_string, target + _place(largest, input.num_dims, i, input.dims) * element_size,
            source + i * line * element_size, line, element_size)
    _free_elements(input, decoded)
    return True


cdef int pack_input(
    const Batch* batch, int index, int64_t num_rows, BufferPool* buffers, TF_Tensor** tensor, int64_t* largest,
    ByteWriter* message,
) noexcept nogil:
    cdef const BatchSlice* slice = batch.first
    cdef const BatchInput* input = &slice.task.inputs[index]
    cdef const BatchInput* first = input
    cdef size_t element_size = input.values.element_size
    cdef bint is_string = input.values.dtype == DT_STRING
    cdef size_t row_size, num_elements, i
    cdef uint8_t* target
    cdef uint8_t* last_row = NULL
    cdef Buffer* buffer
    cdef bint good = True
    cdef int d
    for d in range(input.num_dims):
        largest[d] = input.dims[d]
    while slice is not NULL:
        input = &slice.task.inputs[index]
        for d in range(1, input.num_dims):
            largest[d] = max(largest[d], input.dims[d])
        slice = slice.next
    largest[0] = num_rows
    if not fits_into_tensor(largest, first.num_dims, element_size):
        say(message, "the padded batch is larger than a tensor may be (2 GiB)")
        return RESOURCE_EXHAUSTED
    num_elements = _product(largest, 0, first.num_dims)
    row_size = _product(largest, 1, first.num_dims) * element_size
    buffer = buffer_take(buffers, num_elements * element_size, num_elements if is_string else 0)
    if buffer is NULL:
        say(message, "not enough memory for the batch")
        return RESOURCE_EXHAUSTED
    target = buffer_data(buffer)
    slice = batch.first
    while slice is not NULL and good:
        input = &slice.task.inputs[index]
        last_row = target
        if _product(input.dims, 1, input.num_dims) * element_size != row_size:
            good = _pack_padded(input, slice, largest, target)
        elif input.unpacked is not NULL:
            _copy_elements(
                is_string, target, input.unpacked + <size_t>slice.first_row * row_size,
                <size_t>slice.num_rows * row_size // element_size, element_size)
        else:
            good = _decode(input, target)
        target += <size_t>slice.num_rows * row_size
        slice = slice.next
    if not good:
        buffer_give_back(buffer)
        say(message, "not enough memory for the batch")
        return RESOURCE_EXHAUSTED
    for i in range(<size_t>(num_rows - batch.num_rows)):
        _copy_elements(is_string, target + i * row_size, last_row, row_size // element_size, element_size)
    tensor[0] = buffer_to_tensor(
        buffer, first.values.dtype, largest, first.num_dims, num_elements * element_size)
    if tensor[0] is NULL:
        say(message, "not enough memory for the batch")
        return RESOURCE_EXHAUSTED
    return OK


# --- out --------------------------------------------------------------------------------------------------------------

cdef int64_t _cropped(const BatchTask* task, const BatchOutputs* outputs, int d, int64_t size) noexcept nogil:
    """How long dimension d of an output of that size is without the padding of the inputs."""
    cdef const BatchInput* input
    cdef int i
    for i in range(task.num_inputs):
        input = &task.inputs[i]
        if d < input.num_dims and outputs.padded_dims[i * MAX_BATCH_RANK + d] == size:
            size = min(size, input.dims[d])
            break
    return size


cdef bint _crop(OutputRows* rows, OutputPart* part, const int64_t* outer, size_t element_size) noexcept nogil:
    """Makes the part, whose rows are as large as outer says, one of smaller rows. False: out of memory."""
    cdef const uint8_t* source = part.data
    cdef size_t line = <size_t>rows.dims[rows.num_dims - 1]
    cdef size_t row = _product(rows.dims, 1, rows.num_dims)
    cdef size_t outer_row = _product(outer, 1, rows.num_dims)
    cdef size_t num_rows = part.byte_size // (outer_row * element_size) if outer_row else 0
    cdef size_t count = num_rows * row
    cdef TF_TString* strings
    cdef uint8_t* memory = <uint8_t*>calloc(count + 1, element_size)
    cdef size_t i
    if memory is NULL:
        return False
    if rows.dtype == DT_STRING:
        strings = <TF_TString*>memory
        for i in range(count):
            tf.StringInit(&strings[i])
    part.data = memory
    part.byte_size = count * element_size
    for i in range(count // line if line else 0):
        _copy_elements(
            rows.dtype == DT_STRING, memory + i * line * element_size,
            source + _place(outer, rows.num_dims, i, rows.dims) * element_size, line, element_size)
    return True


cdef int take_rows(const BatchTask* task, int place, OutputRows* rows, ByteWriter* message) noexcept nogil:
    cdef const BatchOutputs* outputs = task.slices[0].outputs
    cdef TF_Tensor* tensor = outputs.tensors[place]
    cdef const BatchSlice* slice
    cdef int64_t* outer
    cdef size_t row_size, element_size
    cdef int i, d
    memset(rows, 0, sizeof(OutputRows))
    rows.dtype = tf.TensorType(tensor)
    element_size = _element_size(rows.dtype)
    rows.num_dims = tf.NumDims(tensor)
    rows.dims = <int64_t*>calloc(2 * <size_t>rows.num_dims, sizeof(int64_t))
    rows.parts = <OutputPart*>calloc(task.num_slices, sizeof(OutputPart))
    if rows.dims is NULL or rows.parts is NULL:
        say(message, "not enough memory for the response")
        return RESOURCE_EXHAUSTED
    outer = rows.dims + rows.num_dims
    for d in range(rows.num_dims):
        outer[d] = tf.Dim(tensor, d)
        rows.dims[d] = outer[d]
        if d and task.queue.batcher.parameters.crops_outputs:
            rows.dims[d] = _cropped(task, outputs, d, outer[d])
            # Parts of a request that was split may have been padded to different lengths.
            rows.is_cropped |= rows.dims[d] != outer[d] or task.num_slices > 1
    rows.is_cropped &= element_size != 0
    rows.dims[0] = task.num_rows
    for i in range(task.num_slices):
        slice = &task.slices[i]
        tensor = slice.outputs.tensors[place]
        if tf.TensorType(tensor) != rows.dtype or tf.NumDims(tensor) != rows.num_dims:
            say(message, "Tensor concat operation failed: the parts of a large request came out as different kinds")
            return INTERNAL
        for d in range(1, rows.num_dims):
            # A part in another batch may have been padded to another length.
            if tf.Dim(tensor, d) != outer[d] and not rows.is_cropped:
                say(message, "Tensor concat operation failed: the parts of a large request came out in unlike shapes")
                return INTERNAL
            outer[d] = tf.Dim(tensor, d)
            if outer[d] < rows.dims[d]:
                say(message, "Tensor concat operation failed: the parts of a large request came out in unlike shapes")
                return INTERNAL
        row_size = tf.TensorByteSize(tensor) // <size_t>slice.outputs.num_rows
        rows.parts[i].data = <const uint8_t*>tf.TensorData(tensor) + <size_t>slice.row_in_batch * row_size
        rows.parts[i].byte_size = <size_t>slice.num_rows * row_size
        if rows.is_cropped:
            if not _crop(rows, &rows.parts[i], outer, element_size):
                say(message, "not enough memory for the response")
                return RESOURCE_EXHAUSTED
        rows.num_parts += 1
    return OK


cdef inline size_t _element_size(int dtype) noexcept nogil:
    return sizeof(TF_TString) if dtype == DT_STRING else tf.DataTypeSize(dtype)


cdef void output_rows_free(OutputRows* rows) noexcept nogil:
    cdef TF_TString* strings
    cdef size_t j
    cdef int i
    if rows.is_cropped:
        for i in range(rows.num_parts):
            strings = <TF_TString*>rows.parts[i].data
            if rows.dtype == DT_STRING:
                for j in range(rows.parts[i].byte_size // sizeof(TF_TString)):
                    tf.StringDealloc(&strings[j])
            free(<void*>rows.parts[i].data)
    free(rows.dims)
    free(rows.parts)


cdef int copy_rows(const BatchTask* task, int place, TF_Tensor** tensor, ByteWriter* message) noexcept nogil:
    cdef OutputRows rows
    cdef size_t element_size, num_bytes = 0
    cdef uint8_t* target
    cdef int i
    cdef int code = take_rows(task, place, &rows, message)
    tensor[0] = NULL
    if code == OK:
        element_size = _element_size(rows.dtype)
        for i in range(rows.num_parts):
            num_bytes += rows.parts[i].byte_size
        if rows.dtype == DT_STRING:
            tensor[0] = new_string_tensor(rows.dims, rows.num_dims, num_bytes // element_size)
        elif element_size:
            tensor[0] = tf.AllocateTensor(rows.dtype, rows.dims, rows.num_dims, num_bytes)
        if tensor[0] is NULL:
            say(message, "not enough memory for the response")
            code = RESOURCE_EXHAUSTED
    if code == OK:
        target = <uint8_t*>tf.TensorData(tensor[0])
        for i in range(rows.num_parts):
            _copy_elements(
                rows.dtype == DT_STRING, target, rows.parts[i].data, rows.parts[i].byte_size // element_size,
                element_size)
            target += rows.parts[i].byte_size
    output_rows_free(&rows)
    return code
