"""Makes string tensors out of request bytes, and releases them when TensorFlow is done with them.

Part of binding inputs in the worker (read → bind → run → encode); runs on execution threads without the GIL.

Strings are always copied. A view into the request (TF_StringAssignView) would save the copy, but kernels copy tstrings
as they are, so a view can outlive the request's bytes in a variable, a lookup table or another tensor.

Source: tensorflow/c/tf_tstring.h; the string form of tensor_content in tensorflow/core/framework/tensor.cc.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free

from tensorgate._native.proto_wire cimport ProtoReader, bytes_left, read_varint
from tensorgate._native.tf_c_api cimport DT_STRING, TF_Tensor, TF_TString, tf


cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size)


cdef void _release_strings(void* data, size_t size, void* unused) noexcept nogil:
    """Deallocator of string tensors; called by TensorFlow on whichever thread drops the last reference."""
    cdef TF_TString* strings = <TF_TString*>data
    cdef size_t i
    for i in range(size // sizeof(TF_TString)):
        tf.StringDealloc(&strings[i])
    free(data)


cdef TF_Tensor* new_string_tensor(const int64_t* dims, int num_dims, size_t num_elements) noexcept nogil:
    cdef void* memory = NULL
    cdef TF_TString* strings
    cdef size_t size = num_elements * sizeof(TF_TString)
    cdef size_t i
    # 64 bytes: what TF_NewTensor asks for, else it copies the tstrings and releases ours.
    if posix_memalign(&memory, 64, size if size else 64) != 0:
        return NULL
    strings = <TF_TString*>memory
    for i in range(num_elements):
        tf.StringInit(&strings[i])
    # The memory is TensorFlow's from here, even if it makes no tensor of it: then the deallocator has run already.
    return tf.NewTensor(DT_STRING, dims, num_dims, memory, size, _release_strings, NULL)


cdef bint is_string_content(ProtoReader content, size_t num_elements) noexcept nogil:
    cdef uint64_t size, left, total = 0
    cdef size_t _i
    for _i in range(num_elements):
        if not read_varint(&content, &size):
            return False
        left = bytes_left(&content)
        if size > left or total > left - size:
            return False
        total += size
    return total == bytes_left(&content)


cdef bint decode_string_content(ProtoReader content, TF_TString* strings, size_t num_elements) noexcept nogil:
    cdef ProtoReader lengths = content
    cdef uint64_t size, left
    cdef size_t i, _i
    for _i in range(num_elements):
        if not read_varint(&content, &size):
            return False
    left = bytes_left(&content)
    for i in range(num_elements):
        # Checked again: the bytes may be lent by somebody who changes them meanwhile.
        if not read_varint(&lengths, &size) or size > left:
            return False
        tf.StringCopy(&strings[i], <const char*>content.pos, <size_t>size)
        content.pos += size
        left -= size
    return left == 0
