"""TensorFlow's C API as a table of function pointers, filled by tf_c_api.load_library; declarations only.

Every function may be called without the GIL once the library is loaded. The types are TensorFlow's own opaque ones.
Source: tensorflow/c/c_api.h, tf_tensor.h, tf_buffer.h, tf_tstring.h (declared here by hand: no header of the
TensorFlow wheel is needed to build).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t

cdef extern from *:
    """
    #ifndef TENSORGATE_TF_C_API_TYPES
    #define TENSORGATE_TF_C_API_TYPES
    #include <stddef.h>
    typedef struct TF_Status TF_Status;
    typedef struct TF_Tensor TF_Tensor;
    typedef struct TF_Graph TF_Graph;
    typedef struct TF_Operation TF_Operation;
    typedef struct TF_Session TF_Session;
    typedef struct TF_SessionOptions TF_SessionOptions;
    typedef struct TF_Library TF_Library;
    typedef struct { const void* data; size_t length; void (*data_deallocator)(void*, size_t); } TF_Buffer;
    typedef struct { TF_Operation* oper; int index; } TF_Output;
    /* A tstring: 24 bytes, only ever touched through the TF_String functions. */
    typedef struct { unsigned char raw[24]; } TF_TString;
    #endif
    """
    ctypedef struct TF_Status
    ctypedef struct TF_Tensor
    ctypedef struct TF_Graph
    ctypedef struct TF_Operation
    ctypedef struct TF_Session
    ctypedef struct TF_SessionOptions
    ctypedef struct TF_Library
    ctypedef struct TF_Buffer:
        const void* data
        size_t length
    ctypedef struct TF_Output:
        TF_Operation* oper
        int index
    ctypedef struct TF_TString:
        pass

# Numbers of tensorflow.DataType (tensorflow/core/framework/types.proto) that the data plane tells apart.
cdef enum:
    DT_INVALID = 0
    DT_FLOAT = 1
    DT_DOUBLE = 2
    DT_INT32 = 3
    DT_UINT8 = 4
    DT_INT16 = 5
    DT_INT8 = 6
    DT_STRING = 7
    DT_COMPLEX64 = 8
    DT_INT64 = 9
    DT_BOOL = 10
    DT_QINT8 = 11
    DT_QUINT8 = 12
    DT_QINT32 = 13
    DT_BFLOAT16 = 14
    DT_QINT16 = 15
    DT_QUINT16 = 16
    DT_UINT16 = 17
    DT_COMPLEX128 = 18
    DT_HALF = 19
    DT_RESOURCE = 20
    DT_VARIANT = 21
    DT_UINT32 = 22
    DT_UINT64 = 23
    DT_FLOAT8_E5M2 = 24
    DT_FLOAT8_E4M3B11FNUZ = 27
    DT_FLOAT8_E5M2FNUZ = 28
    DT_INT4 = 29
    DT_UINT4 = 30
    DT_INT2 = 31
    DT_UINT2 = 32

cdef struct TfApi:
    const char* (*Version)() noexcept nogil
    TF_Library* (*LoadLibrary)(const char* path, TF_Status*) noexcept nogil
    void (*DeleteLibraryHandle)(TF_Library*) noexcept nogil
    # status
    TF_Status* (*NewStatus)() noexcept nogil
    void (*DeleteStatus)(TF_Status*) noexcept nogil
    int (*GetCode)(const TF_Status*) noexcept nogil
    const char* (*Message)(const TF_Status*) noexcept nogil
    # buffers
    TF_Buffer* (*NewBuffer)() noexcept nogil
    TF_Buffer* (*NewBufferFromString)(const void*, size_t) noexcept nogil
    void (*DeleteBuffer)(TF_Buffer*) noexcept nogil
    # tensors
    TF_Tensor* (*NewTensor)(
        int dtype, const int64_t* dims, int num_dims, void* data, size_t size,
        void (*deallocator)(void*, size_t, void*) noexcept nogil, void* deallocator_arg) noexcept nogil
    TF_Tensor* (*AllocateTensor)(int dtype, const int64_t* dims, int num_dims, size_t size) noexcept nogil
    void (*DeleteTensor)(TF_Tensor*) noexcept nogil
    int (*TensorType)(const TF_Tensor*) noexcept nogil
    int (*NumDims)(const TF_Tensor*) noexcept nogil
    int64_t (*Dim)(const TF_Tensor*, int) noexcept nogil
    size_t (*TensorByteSize)(const TF_Tensor*) noexcept nogil
    void* (*TensorData)(const TF_Tensor*) noexcept nogil
    size_t (*DataTypeSize)(int dtype) noexcept nogil
    # strings
    void (*StringInit)(TF_TString*) noexcept nogil
    void (*StringCopy)(TF_TString*, const char*, size_t) noexcept nogil
    void (*StringDealloc)(TF_TString*) noexcept nogil
    const char* (*StringGetDataPointer)(const TF_TString*) noexcept nogil
    size_t (*StringGetSize)(const TF_TString*) noexcept nogil
    # graph and session
    TF_Graph* (*NewGraph)() noexcept nogil
    void (*DeleteGraph)(TF_Graph*) noexcept nogil
    TF_Operation* (*GraphOperationByName)(TF_Graph*, const char*) noexcept nogil
    int (*OperationNumOutputs)(TF_Operation*) noexcept nogil
    TF_SessionOptions* (*NewSessionOptions)() noexcept nogil
    void (*DeleteSessionOptions)(TF_SessionOptions*) noexcept nogil
    void (*SetConfig)(TF_SessionOptions*, const void*, size_t, TF_Status*) noexcept nogil
    TF_Session* (*LoadSessionFromSavedModel)(
        const TF_SessionOptions*, const TF_Buffer*, const char*, const char**, int, TF_Graph*, TF_Buffer*,
        TF_Status*) noexcept nogil
    void (*CloseSession)(TF_Session*, TF_Status*) noexcept nogil
    void (*DeleteSession)(TF_Session*, TF_Status*) noexcept nogil
    void (*SessionRun)(
        TF_Session*, const TF_Buffer*, const TF_Output*, TF_Tensor**, int, const TF_Output*, TF_Tensor**, int,
        const TF_Operation**, int, TF_Buffer*, TF_Status*) noexcept nogil

# All NULL until load_library has returned.
cdef TfApi tf
