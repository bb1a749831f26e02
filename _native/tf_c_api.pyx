"""Finds libtensorflow in the installed wheel, opens it with dlopen and fills the table of its C API.

First thing a worker does. The Python package ``tensorflow`` is found but never imported: the two libraries in its
folder export the whole C API, and their RUNPATH reaches the CUDA wheels. Any thread; idempotent, under the GIL.

Source: tensorflow/c/c_api.h and its neighbours.
"""

import importlib.util
import os

from libc.string cimport memset

from tensorgate._native.shared_library cimport symbol_of, open_library

from tensorgate._native.shared_library import LibraryError


FRAMEWORK_LIBRARY = "libtensorflow_framework.so.2"
CC_LIBRARY = "libtensorflow_cc.so.2"

memset(&tf, 0, sizeof(TfApi))
cdef bint _loaded = False


def library_folder():
    # find_spec reads the folder's path only: the package's own code does not run.
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise LibraryError(
            "TensorFlow is not installed; install tensorgate with its extra cpu (or gpu):"
            " pip install 'tensorgate[cpu]', or in a clone pip install '.[cpu]'"
        )
    return spec.submodule_search_locations[0]


def load_library(folder=None):
    global _loaded
    cdef void* cc
    if not _loaded:
        where = folder if folder is not None else library_folder()
        # The framework library first: the cc library needs it, and finds it already open.
        open_library(os.path.join(where, FRAMEWORK_LIBRARY))
        cc = open_library(os.path.join(where, CC_LIBRARY))
        try:
            _fill(cc)
        except LibraryError as error:
            # All or nothing: users ask for one function before they call another.
            memset(&tf, 0, sizeof(TfApi))
            raise LibraryError(f"{error}; tensorgate needs TensorFlow 2.20 or 2.21") from error
        _loaded = True
    return tf.Version().decode()


def load_op_library(path):
    cdef bytes encoded = os.fsencode(path)
    cdef const char* c_path = encoded
    cdef TF_Status* status
    cdef TF_Library* library
    if tf.LoadLibrary is NULL:
        raise RuntimeError("load_library() comes first")
    with nogil:
        status = tf.NewStatus()
        library = tf.LoadLibrary(c_path, status)
        # The handle is about the ops' descriptions; the library and its kernels stay without it.
        if library is not NULL:
            tf.DeleteLibraryHandle(library)
    try:
        if tf.GetCode(status) != 0:
            raise LibraryError(f"cannot load the ops of {path}: {tf.Message(status).decode(errors='replace')}")
    finally:
        tf.DeleteStatus(status)


cdef int _fill(void* cc) except -1:
    # dlsym on the cc library also finds what it takes from the framework library.
    tf.Version = <const char* (*)() noexcept nogil>symbol_of(cc, b"TF_Version")
    tf.LoadLibrary = <TF_Library* (*)(const char*, TF_Status*) noexcept nogil>symbol_of(cc, b"TF_LoadLibrary")
    tf.DeleteLibraryHandle = <void (*)(TF_Library*) noexcept nogil>symbol_of(cc, b"TF_DeleteLibraryHandle")
    tf.NewStatus = <TF_Status* (*)() noexcept nogil>symbol_of(cc, b"TF_NewStatus")
    tf.DeleteStatus = <void (*)(TF_Status*) noexcept nogil>symbol_of(cc, b"TF_DeleteStatus")
    tf.GetCode = <int (*)(const TF_Status*) noexcept nogil>symbol_of(cc, b"TF_GetCode")
    tf.Message = <const char* (*)(const TF_Status*) noexcept nogil>symbol_of(cc, b"TF_Message")
    tf.NewBuffer = <TF_Buffer* (*)() noexcept nogil>symbol_of(cc, b"TF_NewBuffer")
    tf.NewBufferFromString = <TF_Buffer* (*)(const void*, size_t) noexcept nogil>symbol_of(
        cc, b"TF_NewBufferFromString")
    tf.DeleteBuffer = <void (*)(TF_Buffer*) noexcept nogil>symbol_of(cc, b"TF_DeleteBuffer")
    tf.NewTensor = <TF_Tensor* (*)(
        int, const int64_t*, int, void*, size_t, void (*)(void*, size_t, void*) noexcept nogil, void*
    ) noexcept nogil>symbol_of(cc, b"TF_NewTensor")
    tf.AllocateTensor = <TF_Tensor* (*)(int, const int64_t*, int, size_t) noexcept nogil>symbol_of(
        cc, b"TF_AllocateTensor")
    tf.DeleteTensor = <void (*)(TF_Tensor*) noexcept nogil>symbol_of(cc, b"TF_DeleteTensor")
    tf.TensorType = <int (*)(const TF_Tensor*) noexcept nogil>symbol_of(cc, b"TF_TensorType")
    tf.NumDims = <int (*)(const TF_Tensor*) noexcept nogil>symbol_of(cc, b"TF_NumDims")
    tf.Dim = <int64_t (*)(const TF_Tensor*, int) noexcept nogil>symbol_of(cc, b"TF_Dim")
    tf.TensorByteSize = <size_t (*)(const TF_Tensor*) noexcept nogil>symbol_of(cc, b"TF_TensorByteSize")
    tf.TensorData = <void* (*)(const TF_Tensor*) noexcept nogil>symbol_of(cc, b"TF_TensorData")
    tf.DataTypeSize = <size_t (*)(int) noexcept nogil>symbol_of(cc, b"TF_DataTypeSize")
    tf.StringInit = <void (*)(TF_TString*) noexcept nogil>symbol_of(cc, b"TF_StringInit")
    tf.StringCopy = <void (*)(TF_TString*, const char*, size_t) noexcept nogil>symbol_of(cc, b"TF_StringCopy")
    tf.StringDealloc = <void (*)(TF_TString*) noexcept nogil>symbol_of(cc, b"TF_StringDealloc")
    tf.StringGetDataPointer = <const char* (*)(const TF_TString*) noexcept nogil>symbol_of(
        cc, b"TF_StringGetDataPointer")
    tf.StringGetSize = <size_t (*)(const TF_TString*) noexcept nogil>symbol_of(cc, b"TF_StringGetSize")
    tf.NewGraph = <TF_Graph* (*)() noexcept nogil>symbol_of(cc, b"TF_NewGraph")
    tf.DeleteGraph = <void (*)(TF_Graph*) noexcept nogil>symbol_of(cc, b"TF_DeleteGraph")
    tf.GraphOperationByName = <TF_Operation* (*)(TF_Graph*, const char*) noexcept nogil>symbol_of(
        cc, b"TF_GraphOperationByName")
    tf.OperationNumOutputs = <int (*)(TF_Operation*) noexcept nogil>symbol_of(cc, b"TF_OperationNumOutputs")
    tf.NewSessionOptions = <TF_SessionOptions* (*)() noexcept nogil>symbol_of(cc, b"TF_NewSessionOptions")
    tf.DeleteSessionOptions = <void (*)(TF_SessionOptions*) noexcept nogil>symbol_of(cc, b"TF_DeleteSessionOptions")
    tf.SetConfig = <void (*)(TF_SessionOptions*, const void*, size_t, TF_Status*) noexcept nogil>symbol_of(
        cc, b"TF_SetConfig")
    tf.LoadSessionFromSavedModel = <TF_Session* (*)(
        const TF_SessionOptions*, const TF_Buffer*, const char*, const char**, int, TF_Graph*, TF_Buffer*, TF_Status*
    ) noexcept nogil>symbol_of(cc, b"TF_LoadSessionFromSavedModel")
    tf.CloseSession = <void (*)(TF_Session*, TF_Status*) noexcept nogil>symbol_of(cc, b"TF_CloseSession")
    tf.DeleteSession = <void (*)(TF_Session*, TF_Status*) noexcept nogil>symbol_of(cc, b"TF_DeleteSession")
    tf.SessionRun = <void (*)(
        TF_Session*, const TF_Buffer*, const TF_Output*, TF_Tensor**, int, const TF_Output*, TF_Tensor**, int,
        const TF_Operation**, int, TF_Buffer*, TF_Status*
    ) noexcept nogil>symbol_of(cc, b"TF_SessionRun")
    return 0
