"""gRPC on HTTP/2 streams: headers, messages, deadlines, statuses; unary requests go straight to the dispatcher.

Second stage of a request's line: HTTP/2 → gRPC → dispatcher. A call is its stream: it begins with the stream's headers
and is freed when the stream has closed, whatever came in between. A status may come before the client has sent all;
what it sends then is read and dropped. Calls of methods that Python serves become events (see call_events), and
Python's answers come back as tasks.

Source: gRPC over HTTP/2 (PROTOCOL-HTTP2.md in the grpc repository); status texts of gRPC's C core, which upstream uses.
"""

from libc.stddef cimport size_t
from libc.stdint cimport UINT32_MAX, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset, strlen

from tensorgate._native.byte_writer cimport ByteWriter, put_bytes, put_decimal, put_text, writer_free, writer_init
from tensorgate._native.call_events cimport (
    EVENT_CLOSED,
    EVENT_DRAINED,
    EVENT_END,
    EVENT_MESSAGE,
    EVENT_START,
    call_handle_new,
    call_handle_release,
    event_queue_push,
)
from tensorgate._native.dispatcher cimport (
    MAX_TRACEPARENT,
    Dispatcher,
    Outcome,
    Request,
    dispatcher_cancel,
    dispatcher_submit,
    request_free,
    request_new,
)
from tensorgate._native.event_loop cimport EventLoop, Timer, timer_cancel, timer_init, timer_set
from tensorgate._native.grpc_message cimport (
    MESSAGE_BAD_FLAG,
    MESSAGE_COMPLETE,
    MESSAGE_INCOMPLETE,
    MESSAGE_TOO_LARGE,
    AssemblerResult,
    assembler_free,
    assembler_init,
    assembler_is_between_messages,
    assembler_push,
    assembler_take,
)
from tensorgate._native.grpc_wire cimport (
    ENCODING_GZIP,
    ENCODING_IDENTITY,
    accepted_encodings,
    encoding_of,
    is_grpc_content_type,
    parse_timeout,
    put_grpc_message,
)
from tensorgate._native.gzip_codec cimport (
    DEFLATE_DONE,
    INFLATE_DONE,
    INFLATE_MALFORMED,
    INFLATE_TOO_LARGE,
    InflateResult,
    deflate_message,
    gzip_is_available,
    inflate_message,
)
from tensorgate._native.http2_connection cimport (
    Http2Connection,
    Http2Handler,
    Http2Limits,
    Http2Stream,
    http2_server_init,
    stream_give_back,
    stream_reset,
    stream_respond,
    stream_resume,
    stream_trailer,
)
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
from tensorgate._native.posix cimport atomic_add, atomic_load
from tensorgate._native.proto_scan cimport ModelSpecView, scan_model_spec_view
from tensorgate._native.proto_wire cimport (
    WIRE_BYTES,
    ProtoReader,
    bytes_left,
    read_bytes,
    read_tag,
    reader_of,
    skip_field,
)
from tensorgate._native.route_table cimport VersionState, resolve_route, unpin_version
from tensorgate._native.status_codes cimport (
    DEADLINE_EXCEEDED,
    INTERNAL,
    OK,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNIMPLEMENTED,
)
from tensorgate._native.zmq_api cimport message_of_malloc, zmq


cdef enum:
    # Bytes of messages that wait for Python before the client has to.
    MAX_UNACKNOWLEDGED = 1024 * 1024
    # What RFC 9113 counts for a header beside its bytes.
    HEADER_OVERHEAD = 32


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


# --- budget -----------------------------------------------------------------------------------------------------------


cdef inline void _count_held(GrpcCall* call) noexcept nogil:
    """Brings the budget up to date with what the call holds."""
    cdef size_t held = call.assembler.capacity + call.message_size + call.unacknowledged + call.out_bytes
    if held != call.held_bytes:
        atomic_add(&call.server.budget.held, <int64_t>held - <int64_t>call.held_bytes)
        call.held_bytes = held


cdef inline bint _is_over_budget(GrpcServer* server) noexcept nogil:
    return atomic_load(&server.budget.held) > server.budget.limit


# --- answers ----------------------------------------------------------------------------------------------------------


cdef void _free_out(GrpcCall* call, OutMessage* message) noexcept nogil:
    call.out_bytes -= message.payload_size
    call.stream.connection.held_bytes -= message.payload_size
    if message.reports and call.handle is not NULL:
        event_queue_push(call.server.events, EVENT_DRAINED, call.handle, NULL, 0, 0, -1)
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
            _count_held(call)
    if call.first_out is NULL:
        if call.is_answered:
            flags[0] |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM
            stream_trailer(&call.stream, trailer, _put_status(call, trailer))
        elif written == 0:
            call.is_deferred = True
            return NGHTTP2_ERR_DEFERRED
    call.server.counters.sent_bytes += written
    return <Py_ssize_t>written


cdef void _send_headers(GrpcCall* call) noexcept nogil:
    cdef nghttp2_nv[4] headers
    cdef nghttp2_data_provider body
    cdef size_t count = 3
    headers[0] = _constant(":status", "200")
    headers[1] = _constant("content-type", "application/grpc")
    headers[2] = _constant("grpc-accept-encoding", "identity, gzip")
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
    headers[2] = _constant("grpc-accept-encoding", "identity, gzip")
    call.has_headers = True
    stream_respond(&call.stream, headers, 3 + _put_status(call, headers + 3), NULL)


cdef void _send_http_status(GrpcCall* call, const char* status) noexcept nogil:
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
    free(call.message)
    call.message = NULL
    call.message_size = 0
    _count_held(call)
    if not call.has_headers:
        _send_status_only(call)
    elif call.is_deferred:
        call.is_deferred = False
        stream_resume(&call.stream)


cdef inline void _fail(GrpcCall* call, int code, const char* message) noexcept nogil:
    grpc_call_finish(call, code, <const uint8_t*>message, strlen(message))


cdef void _fail_for_memory(GrpcCall* call) noexcept nogil:
    call.server.counters.refused_for_memory += 1
    _fail(call, RESOURCE_EXHAUSTED, "The server holds as many bytes of requests and replies as it may; retry later.")


cdef bint _queue(GrpcCall* call, OutMessage* message) noexcept nogil:
    """Puts a message whose payload is set behind those that wait. False: it is freed, and the call has failed."""
    cdef uint8_t* packed
    cdef size_t packed_size
    cdef bint is_packed = False
    message.payload_size = zmq.msg_size(&message.payload)
    if message.payload_size > UINT32_MAX:
        zmq.msg_close(&message.payload)
        free(message)
        _fail(call, RESOURCE_EXHAUSTED, "The reply is larger than the 4 GiB that a gRPC message may have")
        return False
    if call.server.limits.compress_replies and call.accepted_encodings & ENCODING_GZIP and deflate_message(
        <const uint8_t*>zmq.msg_data(&message.payload), message.payload_size, &packed, &packed_size
    ) == DEFLATE_DONE:
        zmq.msg_close(&message.payload)
        if not message_of_malloc(&message.payload, packed, packed_size):
            free(packed)
            free(message)
            _fail(call, RESOURCE_EXHAUSTED, "Out of memory")
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
    _count_held(call)
    return True


# --- unary requests ---------------------------------------------------------------------------------------------------


cdef void _on_done(Request* request, const Outcome* outcome) noexcept nogil:
    """The dispatcher has a request's outcome."""
    cdef GrpcCall* call = <GrpcCall*>request.owner
    cdef OutMessage* message
    call.request = NULL
    call.message_size = 0
    if outcome.code != OK:
        grpc_call_finish(call, outcome.code, outcome.message, outcome.message_size)
        return
    message = <OutMessage*>calloc(1, sizeof(OutMessage))
    if message is NULL:
        _fail(call, RESOURCE_EXHAUSTED, "Out of memory")
        return
    zmq.msg_init(&message.payload)
    zmq.msg_move(&message.payload, outcome.payload)
    if not _queue(call, message):
        return
    call.is_answered = True
    call.server.counters.succeeded += 1
    _send_headers(call)


cdef bint _scan_spec(GrpcCall* call, ModelSpecView* spec) noexcept nogil:
    """False: the request's bytes are no message."""
    cdef ProtoReader reader = reader_of(call.message, call.message_size)
    cdef ProtoReader task
    cdef uint32_t field, wire_type
    if call.method.spec_place == SPEC_IN_REQUEST:
        return scan_model_spec_view(call.message, call.message_size, 1, spec)
    while bytes_left(&reader):
        if not read_tag(&reader, &field, &wire_type):
            return False
        if field == 1 and wire_type == WIRE_BYTES:
            return read_bytes(&reader, &task) and scan_model_spec_view(task.pos, bytes_left(&task), 1, spec)
        if not skip_field(&reader, field, wire_type):
            return False
    memset(spec, 0, sizeof(ModelSpecView))
    return True


cdef void _submit(GrpcCall* call) noexcept nogil:
    cdef GrpcServer* server = call.server
    cdef Dispatcher* dispatcher = server.dispatcher
    cdef ModelSpecView spec
    cdef ByteWriter text
    cdef VersionState* version
    cdef Request* request
    cdef int code = OK
    if not _scan_spec(call, &spec):
        # As gRPC's own deserializer answers.
        _fail(call, INTERNAL, "")
        return
    if dispatcher.routes is NULL:
        _fail(call, UNAVAILABLE, "The server is starting.")
        return
    writer_init(&text)
    version = resolve_route(dispatcher.routes, &spec, &code, &text)
    if version is NULL:
        grpc_call_finish(call, code, text.data, text.size)
        writer_free(&text)
        return
    request = request_new()
    if request is NULL:
        _refuse_pinned(call, version)
        return
    zmq.msg_close(&request.payload)
    if not message_of_malloc(&request.payload, call.message, call.message_size):
        zmq.msg_init(&request.payload)
        request_free(request)
        _refuse_pinned(call, version)
        return
    # Its bytes count in the budget until the answer is there.
    call.message = NULL
    request.payload_size = call.message_size
    request.version = version
    request.method = call.method.number
    request.deadline_us = call.deadline_us
    memcpy(request.traceparent, call.traceparent, call.traceparent_size)
    request.traceparent_size = call.traceparent_size
    request.on_done = _on_done
    request.owner = call
    call.request = request
    # From now on the dispatcher watches the deadline.
    timer_cancel(server.http2.loop, &call.timer)
    dispatcher_submit(dispatcher, request)


cdef void _refuse_pinned(GrpcCall* call, VersionState* version) noexcept nogil:
    unpin_version(version)
    _fail(call, RESOURCE_EXHAUSTED, "Out of memory")


# --- messages of the client's -----------------------------------------------------------------------------------------


cdef void _take_message(GrpcCall* call) noexcept nogil:
    """The assembler has a whole message."""
    cdef uint8_t* data
    cdef uint8_t* inflated
    cdef size_t size, inflated_size
    cdef bint compressed
    cdef InflateResult result
    assembler_take(&call.assembler, &data, &size, &compressed)
    call.server.counters.received_bytes += size
    if compressed:
        if call.encoding != ENCODING_GZIP:
            free(data)
            _fail(call, INTERNAL, "Compressed flag set with identity or empty encoding")
            return
        result = inflate_message(data, size, call.server.limits.max_message_size, &inflated, &inflated_size)
        free(data)
        if result != INFLATE_DONE:
            if result == INFLATE_TOO_LARGE:
                _fail(call, RESOURCE_EXHAUSTED, "Received message larger than max, once decompressed")
            elif result == INFLATE_MALFORMED:
                _fail(call, INTERNAL, "Failed to decompress message")
            else:
                _fail(call, RESOURCE_EXHAUSTED, "Out of memory")
            return
        data = inflated
        size = inflated_size
    if call.handle is not NULL:
        call.unacknowledged += size
        if not event_queue_push(call.server.events, EVENT_MESSAGE, call.handle, data, size, 0, -1):
            _fail(call, RESOURCE_EXHAUSTED, "Out of memory")
        return
    if call.has_message:
        free(data)
        _fail(call, INTERNAL, "A unary call has one request message, this one has more")
        return
    call.has_message = True
    call.message = data
    call.message_size = size


cdef void _fail_too_large(GrpcCall* call) noexcept nogil:
    cdef ByteWriter text
    writer_init(&text)
    put_text(&text, "SERVER: Received message larger than max (")
    put_decimal(&text, call.assembler.announced)
    put_text(&text, " vs. ")
    put_decimal(&text, call.server.limits.max_message_size)
    put_text(&text, ")")
    grpc_call_finish(call, RESOURCE_EXHAUSTED, text.data, text.size)
    writer_free(&text)


cdef bint _on_data(Http2Stream* stream, const uint8_t* data, size_t size) noexcept nogil:
    cdef GrpcCall* call = <GrpcCall*>stream
    cdef size_t chunk = size
    cdef AssemblerResult result
    while not call.is_answered:
        result = assembler_push(&call.assembler, &data, &size)
        if result == MESSAGE_COMPLETE:
            _take_message(call)
            continue
        if result == MESSAGE_INCOMPLETE:
            break
        if result == MESSAGE_TOO_LARGE:
            _fail_too_large(call)
        elif result == MESSAGE_BAD_FLAG:
            _fail(call, INTERNAL, "A message begins with a byte that is neither 0 nor 1")
        else:
            _fail(call, RESOURCE_EXHAUSTED, "Out of memory")
    _count_held(call)
    if not call.is_answered and _is_over_budget(call.server):
        _fail_for_memory(call)
    if call.is_answered or call.unacknowledged <= MAX_UNACKNOWLEDGED:
        return True
    call.withheld += chunk
    return False


cdef void _on_end(Http2Stream* stream) noexcept nogil:
    cdef GrpcCall* call = <GrpcCall*>stream
    call.has_ended = True
    if call.is_answered:
        return
    if not assembler_is_between_messages(&call.assembler):
        _fail(call, INTERNAL, "The stream ended in the middle of a message")
    elif call.handle is not NULL:
        event_queue_push(call.server.events, EVENT_END, call.handle, NULL, 0, 0, -1)
    elif not call.has_message:
        # A unary call without its message; an empty message would be there, with a prefix.
        _fail(call, INTERNAL, "")
    else:
        _submit(call)


cdef void grpc_call_acknowledge(GrpcCall* call, size_t size) noexcept nogil:
    call.unacknowledged -= min(size, call.unacknowledged)
    _count_held(call)
    if call.withheld and call.unacknowledged <= MAX_UNACKNOWLEDGED:
        stream_give_back(&call.stream, call.withheld)
        call.withheld = 0


cdef bint grpc_call_send(GrpcCall* call, uint8_t* data, size_t size, bint reports) noexcept nogil:
    cdef OutMessage* message
    if call.is_answered:
        free(data)
        return True
    message = <OutMessage*>calloc(1, sizeof(OutMessage))
    if message is NULL or not message_of_malloc(&message.payload, data, size):
        free(message)
        free(data)
        _fail(call, RESOURCE_EXHAUSTED, "Out of memory")
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


# --- headers of the client's ------------------------------------------------------------------------------------------


cdef inline bint _is(const uint8_t* name, const char* literal, size_t size) noexcept nogil:
    return memcmp(name, literal, size) == 0


cdef const GrpcMethod* _find_method(GrpcServer* server, const uint8_t* path, size_t size) noexcept nogil:
    cdef size_t i
    for i in range(server.num_methods):
        if server.methods[i].path_size == size and memcmp(server.methods[i].path, path, size) == 0:
            return &server.methods[i]
    return NULL


cdef void _put_metadata(
    GrpcCall* call, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size,
) noexcept nogil:
    cdef uint32_t[2] sizes
    sizes[0] = <uint32_t>name_size
    sizes[1] = <uint32_t>value_size
    put_bytes(&call.metadata, sizes, 8)
    put_bytes(&call.metadata, name, name_size)
    put_bytes(&call.metadata, value, value_size)


cdef void _on_header(
    Http2Stream* stream, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size,
) noexcept nogil:
    cdef GrpcCall* call = <GrpcCall*>stream
    if call.is_started:
        return  # trailers
    call.header_bytes += name_size + value_size + HEADER_OVERHEAD
    if call.header_bytes > call.server.http2.limits.max_header_list_size:
        return
    if name_size == 5 and _is(name, ":path", 5):
        call.method = _find_method(call.server, value, value_size)
    elif name_size == 7 and _is(name, ":method", 7):
        call.is_post = value_size == 4 and _is(value, "POST", 4)
    elif name_size == 12 and _is(name, "content-type", 12):
        call.is_grpc = is_grpc_content_type(value, value_size)
    elif name_size == 12 and _is(name, "grpc-timeout", 12):
        call.has_bad_timeout = not parse_timeout(value, value_size, &call.timeout_us)
    elif name_size == 13 and _is(name, "grpc-encoding", 13):
        call.encoding = encoding_of(value, value_size)
    elif name_size == 20 and _is(name, "grpc-accept-encoding", 20):
        call.accepted_encodings = accepted_encodings(value, value_size)
    else:
        if name_size == 11 and _is(name, "traceparent", 11) and value_size <= MAX_TRACEPARENT:
            memcpy(call.traceparent, value, value_size)
            call.traceparent_size = value_size
        # Pseudo-headers come first, so the method is known.
        if call.method is not NULL and call.method.number == 0 and name_size and name[0] != 58:
            _put_metadata(call, name, name_size, value, value_size)


cdef void _on_headers_end(Http2Stream* stream) noexcept nogil:
    cdef GrpcCall* call = <GrpcCall*>stream
    cdef GrpcServer* server = call.server
    if call.is_started:
        return
    call.is_started = True
    server.counters.started += 1
    if call.header_bytes > server.http2.limits.max_header_list_size:
        _fail(call, RESOURCE_EXHAUSTED, "received metadata size exceeds hard limit")
    elif not call.is_post:
        _send_http_status(call, "405")
    elif not call.is_grpc:
        _send_http_status(call, "415")
    elif call.method is NULL:
        _fail(call, UNIMPLEMENTED, "")
    elif call.has_bad_timeout:
        _fail(call, INTERNAL, "grpc-timeout is malformed")
    elif call.encoding == 0 or (call.encoding == ENCODING_GZIP and not gzip_is_available()):
        _fail(call, UNIMPLEMENTED, "The message encoding is not supported; identity and gzip are.")
    elif call.stream.connection.held_bytes > server.http2.limits.max_unsent_bytes:
        # It asks for more and does not take what it has been given.
        _fail_for_memory(call)
    else:
        _start(call)


cdef void _start(GrpcCall* call) noexcept nogil:
    cdef GrpcServer* server = call.server
    cdef int64_t now_us = server.http2.loop.now_us
    if call.timeout_us >= 0:
        call.deadline_us = now_us + call.timeout_us
        if call.timeout_us == 0:
            _fail(call, DEADLINE_EXCEEDED, "Deadline Exceeded")
            return
        if not timer_set(server.http2.loop, &call.timer, call.deadline_us):
            _fail(call, RESOURCE_EXHAUSTED, "Out of memory")
            return
    if call.method.number != 0:
        return
    if not call.metadata.failed:
        call.handle = call_handle_new(call, server.http2.loop)
    if call.handle is NULL:
        _fail(call, RESOURCE_EXHAUSTED, "Out of memory")
        return
    if not event_queue_push(
        server.events, EVENT_START, call.handle, call.metadata.data, call.metadata.size, call.method - server.methods,
        call.deadline_us,
    ):
        _fail(call, RESOURCE_EXHAUSTED, "Out of memory")
    # The event's now.
    writer_init(&call.metadata)


cdef void _on_deadline(Timer* timer) noexcept nogil:
    cdef GrpcCall* call = <GrpcCall*>timer.owner
    if call.handle is not NULL:
        _leave_python(call)
    if call.first_out is not NULL:
        # What waits to go may wait for ever, and a status could only follow a whole message.
        call.is_answered = True
        call.server.counters.failed += 1
        stream_reset(&call.stream, NGHTTP2_CANCEL)
        return
    _fail(call, DEADLINE_EXCEEDED, "Deadline Exceeded")


cdef void _drop_first(GrpcCall* call) noexcept nogil:
    cdef OutMessage* message = call.first_out
    call.first_out = message.next
    if call.first_out is NULL:
        call.last_out = NULL
    _free_out(call, message)


# --- a call's life ----------------------------------------------------------------------------------------------------


cdef Http2Stream* _on_request(Http2Handler* handler, Http2Connection* connection) noexcept nogil:
    cdef GrpcServer* server = <GrpcServer*>handler.owner
    cdef GrpcCall* call = <GrpcCall*>calloc(1, sizeof(GrpcCall))
    if call is NULL:
        return NULL
    call.server = server
    call.encoding = ENCODING_IDENTITY
    call.timeout_us = -1
    call.deadline_us = -1
    writer_init(&call.metadata)
    writer_init(&call.status_message)
    assembler_init(&call.assembler, server.limits.max_message_size)
    timer_init(&call.timer, _on_deadline, call)
    return &call.stream


cdef void _leave_python(GrpcCall* call) noexcept nogil:
    """Tells Python that the call is over, and is not reached by Python any more."""
    event_queue_push(call.server.events, EVENT_CLOSED, call.handle, NULL, 0, 0, -1)
    call.handle.call = NULL
    call_handle_release(call.handle)
    call.handle = NULL


cdef void _on_close(Http2Stream* stream) noexcept nogil:
    cdef GrpcCall* call = <GrpcCall*>stream
    cdef GrpcServer* server = call.server
    timer_cancel(server.http2.loop, &call.timer)
    if not call.is_answered:
        server.counters.cancelled += 1
    if call.request is not NULL:
        dispatcher_cancel(server.dispatcher, call.request)
        call.request = NULL
    if call.handle is not NULL:
        _leave_python(call)
    while call.first_out is not NULL:
        _drop_first(call)
    assembler_free(&call.assembler)
    free(call.message)
    writer_free(&call.metadata)
    writer_free(&call.status_message)
    atomic_add(&server.budget.held, -<int64_t>call.held_bytes)
    free(call)


cdef bint grpc_server_init(
    GrpcServer* server, EventLoop* loop, Dispatcher* dispatcher, const Http2Limits* http2_limits,
    const GrpcLimits* limits,
) noexcept nogil:
    memset(server, 0, sizeof(GrpcServer))
    if not http2_server_init(&server.http2, loop, http2_limits):
        return False
    server.dispatcher = dispatcher
    server.limits = limits[0]
    server.http2.handler.owner = server
    server.http2.handler.on_request = _on_request
    server.http2.handler.on_header = _on_header
    server.http2.handler.on_headers_end = _on_headers_end
    server.http2.handler.on_data = _on_data
    server.http2.handler.on_end = _on_end
    server.http2.handler.on_close = _on_close
    return True
