"""Requests' inputs into the tensors of a batch, and a batch's outputs back into rows."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t

from tensorgate._native.batch_state cimport Batch, BatchTask, BufferPool
from tensorgate._native.byte_writer cimport ByteWriter
from tensorgate._native.response_encode cimport OutputPart
from tensorgate._native.tf_c_api cimport TF_Tensor


cdef struct OutputRows:
    # A task's rows of one output. The parts, one for each slice, point into the tensors that the batches put out,
    # unless they were cropped into memory of their own; released by output_rows_free.
    int dtype
    int num_dims
    int64_t* dims
    OutputPart* parts
    int num_parts
    bint is_cropped


# Whether it is no larger than a tensor may be; every dim is at least 0.
cdef bint fits_into_tensor(const int64_t* dims, int num_dims, size_t element_size) noexcept nogil
# Makes the tensor of one input of the batch's queue, of num_rows rows, those beyond the tasks' filled with the last
# task's first row. largest gets the dims that each row has. A canonical status code; the text in message.
cdef int pack_input(
    const Batch* batch, int index, int64_t num_rows, BufferPool* buffers, TF_Tensor** tensor, int64_t* largest,
    ByteWriter* message) noexcept nogil
# Decodes the inputs of a task that is to be split, so that its rows can be told apart. False: out of memory;
# free_unpacked comes after, all the same.
cdef bint unpack_inputs(BatchTask* task) noexcept nogil
cdef void free_unpacked(BatchTask* task) noexcept nogil
# The task's rows of the queue's fetch of that index; all its slices have run. A canonical status code.
cdef int take_rows(const BatchTask* task, int place, OutputRows* rows, ByteWriter* message) noexcept nogil
cdef void output_rows_free(OutputRows* rows) noexcept nogil
# The same rows as a tensor of its own, the caller's.
cdef int copy_rows(const BatchTask* task, int place, TF_Tensor** tensor, ByteWriter* message) noexcept nogil
