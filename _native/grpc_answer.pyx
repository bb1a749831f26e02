"""What a gRPC call is answered with: messages, headers, a status; nghttp2 fetches them as the client takes them.

Last stage of a request's line in the gateway: dispatcher → answer → HTTP/2. A status may come before the client has
sent all; what is queued goes out before it. Everything here is for the thread of the server's loop.

Source: gRPC over HTTP/2 (PROTOCOL-HTTP2.md in the grpc repository); status texts of gRPC's C core, which upstream uses.
"""

from libc.stddef cimport size_t
from libc.stdint cimport UINT32_MAX, int32_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, strlen

from tensorgate._native.call_events cimport EVENT_DRAINED, call_event_push
from tensorgate._native.event_loop cimport timer_cancel
from tensorgate._native.grpc_message cimport assembler_free, message_free
from tensorgate._native.grpc_state cimport GrpcCall, OutMessage, count_held
from tensorgate._native.grpc_wire cimport ENCODING_GZIP, put_grpc_message
from tensorgate._native.compressed_messages cimport DEFLATE_DONE, deflate_message
from tensorgate._native.http2_stream cimport stream_reset, stream_respond, stream_resume, stream_trailer
from tensorgate._native.nghttp2_api cimport (
    NGHTTP2_CANCEL,
    NGHTTP2_DATA_FLAG_EOF,
    NGHTTP2_DATA_FLAG_NO_END_STREAM,
    NGHTTP2_ERR_DEFERRED,
    NGHTTP2_NV_FLAG_NO_COPY_NAME,
    NGHTTP2_NV_FLAG_NO_COPY_VALUE,
    nghttp2_data_provider,
    nghttp2_data_source,
    nghttp2_nv,
    nghttp2_session,
)
from tensorgate._native.status_codes cimport OK, RESOURCE_EXHAUSTED
from tensorgate._native.zmq_api cimport message_of_malloc, zmq, zmq_msg_t


# --- headers that never change ----------------------------------------------------------------------------------------


cdef inline nghttp2_nv _constant(const char* name, const char* value) noexcept nogil:
    cdef nghttp2_nv header
    header.name = <uint8_t*>name
    header.namelen = strlen(name)
    header.value = <uint8_t*>value
    header.valuelen = strlen(value)
    header.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE
    return header


cdef const char** CODE_DIGITS = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
]


cdef inline size_t _put_status(GrpcCall* call, nghttp2_nv* headers) noexcept nogil:
    """grpc-status and, where there is one, grpc-message; at most two headers."""
    headers[0] = _constant("grpc-status", CODE_DIGITS[call.code if 0 <= call.code <= 16 else 2])
    if call.status_message.size == 0 or call.status_message.failed:
        return 1
    headers[1] = _constant("grpc-message", "")
    headers[1].value = call.status_message.data
    headers[1].valuelen = call.status_message.size
    headers[1].flags = NGHTTP2_NV_FLAG_NO_COPY_NAME
    return 2


# --- messages ---------------------------------------------------------------------------------------------------------


cdef void _free_out(GrpcCall* call, OutMessage* message) noexcept nogil:
    call.out_bytes -= message.payload_size
    call.stream.connection.held_bytes -= message.payload_size
    if message.reports and call.handle is not NULL:
        call_event_push(call.server.events, EVENT_DRAINED, call.handle, NULL, 0, 0, -1)
    zmq.msg_close(&message.payload)
    free(message)


cdef Py_ssize_t _read_answer(
    nghttp2_session* session, int32_t stream_id, uint8_t* buffer, size_t size, uint32_t* flags,
    nghttp2_data_source* source, void* user,
) noexcept nogil:
    """nghttp2 asks for the next bytes of a call's DATA."""
    cdef GrpcCall* call = <GrpcCall*>source.ptr
    cdef OutMessage* message
    cdef nghttp2_nv[2] trailer
    cdef size_t written = 0, count
    while written < size and call.first_out is not NULL:
        message = call.first_out
        if message.offset < 5:
            count = min(5 - message.offset, size - written)
            memcpy(buffer + written, message.prefix + message.offset, count)
        else:
            count = min(message.payload_size - (message.offset - 5), size - written)
            if count:
                memcpy(
                    buffer + written, <uint8_t*>zmq.msg_data(&message.payload) + (message.offset - 5), count)
        message.offset += count
        written += count
        if message.offset == message.payload_size + 5:
            call.first_out = message.next
            if call.first_out is NULL:
                call.last_out = NULL
            _free_out(call, message)
            count_held(call)
    if call.first_out is NULL:
        if call.is_answered:
            flags[0] |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM
            stream_trailer(&call.stream, trailer, _put_status(call, trailer))
        elif written == 0:
            call.is_deferred = True
            return NGHTTP2_ERR_DEFERRED
    call.server.counters.sent_bytes += written
    return <Py_ssize_t>written


cdef bint _queue(GrpcCall* call, OutMessage* message) noexcept nogil:
    """Puts a message whose payload is set behind those that wait. False: it is freed, and the call has failed."""
    cdef uint8_t* packed
    cdef size_t packed_size
    cdef bint is_packed = False
    message.payload_size = zmq.msg_size(&message.payload)
    if message.payload_size > UINT32_MAX:
        zmq.msg_close(&message.payload)
        free(message)
        grpc_call_fail(call, RESOURCE_EXHAUSTED, "The reply is larger than the 4 GiB that a gRPC message may have")
        return False
    if call.server.limits.compress_replies and call.accepted_encodings & ENCODING_GZIP and deflate_message(
        <const uint8_t*>zmq.msg_data(&message.payload), message.payload_size, &packed, &packed_size
    ) == DEFLATE_DONE:
        zmq.msg_close(&message.payload)
        if not message_of_malloc(&message.payload, packed, packed_size):
            free(packed)
            free(message)
            grpc_call_fail(call, RESOURCE_EXHAUSTED, "Out of memory")
            return False
        message.payload_size = packed_size
        is_packed = True
    message.prefix[0] = is_packed
    message.prefix[1] = <uint8_t>(message.payload_size >> 24)
    message.prefix[2] = <uint8_t>(message.payload_size >> 16)
    message.prefix[3] = <uint8_t>(message.payload_size >> 8)
    message.prefix[4] = <uint8_t>message.payload_size
    if call.last_out is NULL:
        call.first_out = message
    else:
        call.last_out.next = message
    call.last_out = message
    call.out_bytes += message.payload_size
    call.stream.connection.held_bytes += message.payload_size
    count_held(call)
    return True


# --- headers and statuses ---------------------------------------------------------------------------------------------


cdef void _send_headers(GrpcCall* call) noexcept nogil:
    cdef nghttp2_nv[4] headers
    cdef nghttp2_data_provider body
    cdef size_t count = 3
    headers[0] = _constant(":status", "200")
    headers[1] = _constant("content-type", "application/grpc")
    headers[2] = _constant("grpc-accept-encoding", "identity, deflate, gzip")
    if call.server.limits.compress_replies and call.accepted_encodings & ENCODING_GZIP:
        headers[3] = _constant("grpc-encoding", "gzip")
        count = 4
    body.source.ptr = call
    body.read_callback = _read_answer
    call.has_headers = True
    stream_respond(&call.stream, headers, count, &body)


cdef void _send_status_only(GrpcCall* call) noexcept nogil:
    cdef nghttp2_nv[5] headers
    headers[0] = _constant(":status", "200")
    headers[1] = _constant("content-type", "application/grpc")
    headers[2] = _constant("grpc-accept-encoding", "identity, deflate, gzip")
    call.has_headers = True
    stream_respond(&call.stream, headers, 3 + _put_status(call, headers + 3), NULL)


cdef void grpc_call_fail_http(GrpcCall* call, const char* status) noexcept nogil:
    """For what is no gRPC."""
    cdef nghttp2_nv[1] headers
    headers[0] = _constant(":status", status)
    call.is_answered = True
    call.has_headers = True
    call.server.counters.failed += 1
    stream_respond(&call.stream, headers, 1, NULL)


cdef void grpc_call_finish(GrpcCall* call, int code, const uint8_t* message, size_t size) noexcept nogil:
    if call.is_answered:
        return
    call.is_answered = True
    call.code = code
    if code == OK:
        call.server.counters.succeeded += 1
    else:
        call.server.counters.failed += 1
        put_grpc_message(&call.status_message, message, size)
    timer_cancel(call.server.http2.loop, &call.timer)
    # No more of the request is wanted.
    assembler_free(&call.assembler)
    message_free(&call.message)
    call.message_size = 0
    count_held(call)
    if not call.has_headers:
        _send_status_only(call)
    elif call.is_deferred:
        call.is_deferred = False
        stream_resume(&call.stream)


cdef void grpc_call_fail(GrpcCall* call, int code, const char* message) noexcept nogil:
    grpc_call_finish(call, code, <const uint8_t*>message, strlen(message))


cdef void grpc_call_fail_for_memory(GrpcCall* call) noexcept nogil:
    call.server.counters.refused_for_memory += 1
    grpc_call_fail(
        call, RESOURCE_EXHAUSTED, "The server holds as many bytes of requests and replies as it may; retry later.")


cdef void grpc_call_abandon(GrpcCall* call) noexcept nogil:
    call.is_answered = True
    call.server.counters.failed += 1
    stream_reset(&call.stream, NGHTTP2_CANCEL)


# --- replies ----------------------------------------------------------------------------------------------------------


cdef void grpc_call_reply(GrpcCall* call, zmq_msg_t* payload) noexcept nogil:
    cdef OutMessage* message = <OutMessage*>calloc(1, sizeof(OutMessage))
    if message is NULL:
        grpc_call_fail(call, RESOURCE_EXHAUSTED, "Out of memory")
        return
    zmq.msg_init(&message.payload)
    zmq.msg_move(&message.payload, payload)
    if not _queue(call, message):
        return
    call.is_answered = True
    call.server.counters.succeeded += 1
    _send_headers(call)


cdef bint grpc_call_send(GrpcCall* call, uint8_t* data, size_t size, bint reports) noexcept nogil:
    cdef OutMessage* message
    if call.is_answered:
        free(data)
        return True
    message = <OutMessage*>calloc(1, sizeof(OutMessage))
    if message is NULL or not message_of_malloc(&message.payload, data, size):
        free(message)
        free(data)
        grpc_call_fail(call, RESOURCE_EXHAUSTED, "Out of memory")
        return False
    message.reports = reports
    if not _queue(call, message):
        return False
    if not call.has_headers:
        _send_headers(call)
    elif call.is_deferred:
        call.is_deferred = False
        stream_resume(&call.stream)
    return True


cdef void grpc_call_drop_answer(GrpcCall* call) noexcept nogil:
    cdef OutMessage* message
    while call.first_out is not NULL:
        message = call.first_out
        call.first_out = message.next
        _free_out(call, message)
    call.last_out = NULL
