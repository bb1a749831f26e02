"""Opens libnghttp2, the one that came with this package or else the system's, and fills the table of its functions.

Called once by a gateway that is to serve gRPC with its own edge. Any thread; idempotent, under the GIL.

Source: nghttp2.h.
"""

import os

from libc.stdint cimport int32_t
from libc.string cimport memset

from tensorgate._native.shared_library cimport find_symbol, symbol_of, open_library


LIBRARY = "libnghttp2.so.14"
# Wheels for package indexes carry one; a build from source does not.
BUNDLED_LIBRARY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib", LIBRARY)

memset(&nghttp2, 0, sizeof(Nghttp2Api))
cdef bint _loaded = False


def load_library():
    global _loaded
    if not _loaded:
        _fill(open_library(BUNDLED_LIBRARY if os.path.exists(BUNDLED_LIBRARY) else LIBRARY))
        _loaded = True
    return nghttp2.version(0).version_str.decode()


cdef int _fill(void* handle) except -1:
    nghttp2.version = <nghttp2_info* (*)(int) noexcept nogil>symbol_of(handle, b"nghttp2_version")
    nghttp2.strerror = <const char* (*)(int) noexcept nogil>symbol_of(handle, b"nghttp2_strerror")
    nghttp2.callbacks_new = <int (*)(
        nghttp2_session_callbacks**
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_callbacks_new")
    nghttp2.callbacks_del = <void (*)(
        nghttp2_session_callbacks*
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_callbacks_del")
    nghttp2.set_on_begin_frame = <void (*)(
        nghttp2_session_callbacks*, OnFrame
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_callbacks_set_on_begin_frame_callback")
    nghttp2.set_on_begin_headers = <void (*)(
        nghttp2_session_callbacks*, OnFrame
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_callbacks_set_on_begin_headers_callback")
    nghttp2.set_on_header = <void (*)(
        nghttp2_session_callbacks*, OnHeader
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_callbacks_set_on_header_callback")
    nghttp2.set_on_data_chunk = <void (*)(
        nghttp2_session_callbacks*, OnDataChunk
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_callbacks_set_on_data_chunk_recv_callback")
    nghttp2.set_on_frame_recv = <void (*)(
        nghttp2_session_callbacks*, OnFrame
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_callbacks_set_on_frame_recv_callback")
    nghttp2.set_on_frame_send = <void (*)(
        nghttp2_session_callbacks*, OnFrame
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_callbacks_set_on_frame_send_callback")
    nghttp2.set_on_stream_close = <void (*)(
        nghttp2_session_callbacks*, OnStreamClose
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_callbacks_set_on_stream_close_callback")
    nghttp2.option_new = <int (*)(nghttp2_option**) noexcept nogil>symbol_of(handle, b"nghttp2_option_new")
    nghttp2.option_del = <void (*)(nghttp2_option*) noexcept nogil>symbol_of(handle, b"nghttp2_option_del")
    nghttp2.option_no_auto_window_update = <void (*)(
        nghttp2_option*, int
    ) noexcept nogil>symbol_of(handle, b"nghttp2_option_set_no_auto_window_update")
    nghttp2.option_no_closed_streams = <void (*)(
        nghttp2_option*, int
    ) noexcept nogil>symbol_of(handle, b"nghttp2_option_set_no_closed_streams")
    # Not in every version.
    nghttp2.option_stream_reset_rate_limit = <void (*)(
        nghttp2_option*, uint64_t, uint64_t
    ) noexcept nogil>find_symbol(handle, b"nghttp2_option_set_stream_reset_rate_limit")
    nghttp2.server_new = <int (*)(
        nghttp2_session**, const nghttp2_session_callbacks*, void*, const nghttp2_option*
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_server_new2")
    nghttp2.session_del = <void (*)(nghttp2_session*) noexcept nogil>symbol_of(handle, b"nghttp2_session_del")
    nghttp2.mem_recv = <Py_ssize_t (*)(
        nghttp2_session*, const uint8_t*, size_t
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_mem_recv")
    nghttp2.mem_send = <Py_ssize_t (*)(
        nghttp2_session*, const uint8_t**
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_mem_send")
    nghttp2.want_read = <int (*)(nghttp2_session*) noexcept nogil>symbol_of(handle, b"nghttp2_session_want_read")
    nghttp2.outbound_queue_size = <size_t (*)(
        nghttp2_session*
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_get_outbound_queue_size")
    nghttp2.want_write = <int (*)(nghttp2_session*) noexcept nogil>symbol_of(handle, b"nghttp2_session_want_write")
    nghttp2.submit_settings = <int (*)(
        nghttp2_session*, uint8_t, const nghttp2_settings_entry*, size_t
    ) noexcept nogil>symbol_of(handle, b"nghttp2_submit_settings")
    nghttp2.submit_response = <int (*)(
        nghttp2_session*, int32_t, const nghttp2_nv*, size_t, const nghttp2_data_provider*
    ) noexcept nogil>symbol_of(handle, b"nghttp2_submit_response")
    nghttp2.submit_trailer = <int (*)(
        nghttp2_session*, int32_t, const nghttp2_nv*, size_t
    ) noexcept nogil>symbol_of(handle, b"nghttp2_submit_trailer")
    nghttp2.submit_rst_stream = <int (*)(
        nghttp2_session*, uint8_t, int32_t, uint32_t
    ) noexcept nogil>symbol_of(handle, b"nghttp2_submit_rst_stream")
    nghttp2.submit_goaway = <int (*)(
        nghttp2_session*, uint8_t, int32_t, uint32_t, const uint8_t*, size_t
    ) noexcept nogil>symbol_of(handle, b"nghttp2_submit_goaway")
    nghttp2.submit_shutdown_notice = <int (*)(
        nghttp2_session*
    ) noexcept nogil>symbol_of(handle, b"nghttp2_submit_shutdown_notice")
    nghttp2.submit_ping = <int (*)(
        nghttp2_session*, uint8_t, const uint8_t*
    ) noexcept nogil>symbol_of(handle, b"nghttp2_submit_ping")
    nghttp2.last_proc_stream_id = <int32_t (*)(
        nghttp2_session*
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_get_last_proc_stream_id")
    nghttp2.terminate_session = <int (*)(
        nghttp2_session*, uint32_t
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_terminate_session")
    nghttp2.consume = <int (*)(
        nghttp2_session*, int32_t, size_t
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_consume")
    nghttp2.consume_connection = <int (*)(
        nghttp2_session*, size_t
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_consume_connection")
    nghttp2.consume_stream = <int (*)(
        nghttp2_session*, int32_t, size_t
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_consume_stream")
    nghttp2.set_local_window_size = <int (*)(
        nghttp2_session*, uint8_t, int32_t, int32_t
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_set_local_window_size")
    nghttp2.set_stream_user_data = <int (*)(
        nghttp2_session*, int32_t, void*
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_set_stream_user_data")
    nghttp2.get_stream_user_data = <void* (*)(
        nghttp2_session*, int32_t
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_get_stream_user_data")
    nghttp2.stream_remote_close = <int (*)(
        nghttp2_session*, int32_t
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_get_stream_remote_close")
    nghttp2.resume_data = <int (*)(
        nghttp2_session*, int32_t
    ) noexcept nogil>symbol_of(handle, b"nghttp2_session_resume_data")
    return 0
