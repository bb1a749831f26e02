"""The part of libnghttp2 that the gRPC edge uses, as a table of function pointers; declarations only.

Filled by nghttp2_api.load_library. A session belongs to one thread; no function needs the GIL. Callbacks get the
session's user data last, return 0, and must not send, receive or delete their own session.

Source: nghttp2.h of libnghttp2 1.43 and later, soname 14 (declared here by hand: no header is needed to build).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef TENSORGATE_NGHTTP2_TYPES
    #define TENSORGATE_NGHTTP2_TYPES
    #include <stddef.h>
    #include <stdint.h>
    #include <sys/types.h>
    typedef struct nghttp2_session nghttp2_session;
    typedef struct nghttp2_option nghttp2_option;
    typedef struct nghttp2_session_callbacks nghttp2_session_callbacks;
    typedef struct { size_t length; int32_t stream_id; uint8_t type; uint8_t flags; uint8_t reserved; } nghttp2_frame;
    typedef struct { nghttp2_frame hd; uint32_t error_code; } nghttp2_rst_stream;
    typedef struct { uint8_t* name; uint8_t* value; size_t namelen; size_t valuelen; uint8_t flags; } nghttp2_nv;
    typedef struct { int32_t settings_id; uint32_t value; } nghttp2_settings_entry;
    typedef union { int fd; void* ptr; } nghttp2_data_source;
    typedef ssize_t (*nghttp2_data_source_read_callback)(
        nghttp2_session*, int32_t, uint8_t*, size_t, uint32_t*, nghttp2_data_source*, void*);
    typedef struct {
      nghttp2_data_source source; nghttp2_data_source_read_callback read_callback;
    } nghttp2_data_provider;
    typedef struct { int age; int version_num; const char* version_str; } nghttp2_info;
    #endif
    """
    ctypedef struct nghttp2_session
    ctypedef struct nghttp2_option
    ctypedef struct nghttp2_session_callbacks
    # Every frame begins with this header.
    ctypedef struct nghttp2_frame:
        size_t length
        int32_t stream_id
        uint8_t type
        uint8_t flags
    ctypedef struct nghttp2_rst_stream:
        uint32_t error_code
    ctypedef struct nghttp2_nv:
        uint8_t* name
        uint8_t* value
        size_t namelen
        size_t valuelen
        uint8_t flags
    ctypedef struct nghttp2_settings_entry:
        int32_t settings_id
        uint32_t value
    ctypedef union nghttp2_data_source:
        void* ptr
    ctypedef Py_ssize_t (*nghttp2_data_source_read_callback)(
        nghttp2_session*, int32_t stream_id, uint8_t* buffer, size_t size, uint32_t* flags, nghttp2_data_source*,
        void*) noexcept nogil
    ctypedef struct nghttp2_data_provider:
        nghttp2_data_source source
        nghttp2_data_source_read_callback read_callback
    ctypedef struct nghttp2_info:
        const char* version_str

cdef enum:
    NGHTTP2_ERR_WOULDBLOCK = -504
    NGHTTP2_ERR_DEFERRED = -508
    NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE = -521
    NGHTTP2_ERR_CALLBACK_FAILURE = -902
    # Frame types and flags.
    NGHTTP2_DATA = 0
    NGHTTP2_HEADERS = 1
    NGHTTP2_RST_STREAM = 3
    NGHTTP2_PING = 6
    NGHTTP2_FLAG_NONE = 0
    NGHTTP2_FLAG_END_STREAM = 1
    NGHTTP2_FLAG_ACK = 1
    NGHTTP2_NV_FLAG_NO_COPY_NAME = 2
    NGHTTP2_NV_FLAG_NO_COPY_VALUE = 4
    NGHTTP2_DATA_FLAG_EOF = 1
    NGHTTP2_DATA_FLAG_NO_END_STREAM = 2
    # Settings.
    NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS = 3
    NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE = 4
    NGHTTP2_SETTINGS_MAX_FRAME_SIZE = 5
    NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE = 6
    # Error codes (RFC 9113, section 7).
    NGHTTP2_NO_ERROR = 0
    NGHTTP2_PROTOCOL_ERROR = 1
    NGHTTP2_INTERNAL_ERROR = 2
    NGHTTP2_FLOW_CONTROL_ERROR = 3
    NGHTTP2_STREAM_CLOSED = 5
    NGHTTP2_REFUSED_STREAM = 7
    NGHTTP2_CANCEL = 8
    NGHTTP2_ENHANCE_YOUR_CALM = 11

ctypedef int (*OnFrame)(nghttp2_session*, const nghttp2_frame*, void*) noexcept nogil
ctypedef int (*OnHeader)(
    nghttp2_session*, const nghttp2_frame*, const uint8_t* name, size_t name_size, const uint8_t* value,
    size_t value_size, uint8_t flags, void*) noexcept nogil
ctypedef int (*OnDataChunk)(
    nghttp2_session*, uint8_t flags, int32_t stream_id, const uint8_t* data, size_t size, void*) noexcept nogil
ctypedef int (*OnStreamClose)(nghttp2_session*, int32_t stream_id, uint32_t error_code, void*) noexcept nogil

cdef struct Nghttp2Api:
    nghttp2_info* (*version)(int least_version) noexcept nogil
    const char* (*strerror)(int) noexcept nogil
    int (*callbacks_new)(nghttp2_session_callbacks**) noexcept nogil
    void (*callbacks_del)(nghttp2_session_callbacks*) noexcept nogil
    # Gets the header of a frame whose rest has not come yet.
    void (*set_on_begin_frame)(nghttp2_session_callbacks*, OnFrame) noexcept nogil
    void (*set_on_begin_headers)(nghttp2_session_callbacks*, OnFrame) noexcept nogil
    void (*set_on_header)(nghttp2_session_callbacks*, OnHeader) noexcept nogil
    void (*set_on_data_chunk)(nghttp2_session_callbacks*, OnDataChunk) noexcept nogil
    void (*set_on_frame_recv)(nghttp2_session_callbacks*, OnFrame) noexcept nogil
    void (*set_on_frame_send)(nghttp2_session_callbacks*, OnFrame) noexcept nogil
    void (*set_on_stream_close)(nghttp2_session_callbacks*, OnStreamClose) noexcept nogil
    int (*option_new)(nghttp2_option**) noexcept nogil
    void (*option_del)(nghttp2_option*) noexcept nogil
    void (*option_no_auto_window_update)(nghttp2_option*, int) noexcept nogil
    void (*option_no_closed_streams)(nghttp2_option*, int) noexcept nogil
    # NULL before 1.57, except where the distribution has brought it into an older one.
    void (*option_stream_reset_rate_limit)(nghttp2_option*, uint64_t burst, uint64_t rate) noexcept nogil
    int (*server_new)(
        nghttp2_session**, const nghttp2_session_callbacks*, void*, const nghttp2_option*) noexcept nogil
    void (*session_del)(nghttp2_session*) noexcept nogil
    Py_ssize_t (*mem_recv)(nghttp2_session*, const uint8_t*, size_t) noexcept nogil
    # The bytes at *data stay valid until the next call on the session.
    Py_ssize_t (*mem_send)(nghttp2_session*, const uint8_t** data) noexcept nogil
    int (*want_read)(nghttp2_session*) noexcept nogil
    # Frames that wait to be sent, but for DATA.
    size_t (*outbound_queue_size)(nghttp2_session*) noexcept nogil
    int (*want_write)(nghttp2_session*) noexcept nogil
    int (*submit_settings)(nghttp2_session*, uint8_t flags, const nghttp2_settings_entry*, size_t) noexcept nogil
    int (*submit_response)(
        nghttp2_session*, int32_t stream_id, const nghttp2_nv*, size_t, const nghttp2_data_provider*) noexcept nogil
    int (*submit_trailer)(nghttp2_session*, int32_t stream_id, const nghttp2_nv*, size_t) noexcept nogil
    int (*submit_rst_stream)(nghttp2_session*, uint8_t flags, int32_t stream_id, uint32_t error_code) noexcept nogil
    int (*submit_goaway)(
        nghttp2_session*, uint8_t flags, int32_t last_stream_id, uint32_t error_code, const uint8_t*,
        size_t) noexcept nogil
    int (*submit_shutdown_notice)(nghttp2_session*) noexcept nogil
    int (*submit_ping)(nghttp2_session*, uint8_t flags, const uint8_t* eight_bytes) noexcept nogil
    int32_t (*last_proc_stream_id)(nghttp2_session*) noexcept nogil
    int (*terminate_session)(nghttp2_session*, uint32_t error_code) noexcept nogil
    int (*consume)(nghttp2_session*, int32_t stream_id, size_t) noexcept nogil
    int (*consume_connection)(nghttp2_session*, size_t) noexcept nogil
    int (*consume_stream)(nghttp2_session*, int32_t stream_id, size_t) noexcept nogil
    int (*set_local_window_size)(nghttp2_session*, uint8_t flags, int32_t stream_id, int32_t) noexcept nogil
    int (*set_stream_user_data)(nghttp2_session*, int32_t stream_id, void*) noexcept nogil
    void* (*get_stream_user_data)(nghttp2_session*, int32_t stream_id) noexcept nogil
    int (*stream_remote_close)(nghttp2_session*, int32_t stream_id) noexcept nogil
    int (*resume_data)(nghttp2_session*, int32_t stream_id) noexcept nogil

cdef Nghttp2Api nghttp2
