"""gRPC calls on HTTP/2 streams: their messages, their deadlines, their life.

Second stage of a request's line: HTTP/2 → gRPC → dispatcher. A call is its stream: it begins with the stream's headers
and is freed when the stream has closed, whatever came in between. A status may come before the client has sent all;
what it sends then is read and dropped. Unary requests go straight to the dispatcher; calls of methods that Python
serves become events (see call_events), and Python's answers come back as tasks.

Source: gRPC over HTTP/2 (PROTOCOL-HTTP2.md in the grpc repository); status texts of gRPC's C core, which upstream uses.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from tensorgate._native.byte_writer cimport ByteWriter, put_decimal, put_text, writer_free, writer_init
from tensorgate._native.call_events cimport (
    EVENT_CLOSED,
    EVENT_END,
    EVENT_MESSAGE,
    EVENT_START,
    call_event_push,
    call_handle_new,
    call_handle_release,
)
from tensorgate._native.dispatcher_state cimport Dispatcher
from tensorgate._native.event_loop cimport EventLoop, Timer, timer_cancel, timer_init, timer_set
from tensorgate._native.grpc_answer cimport (
    grpc_call_abandon,
    grpc_call_drop_answer,
    grpc_call_fail,
    grpc_call_fail_for_memory,
    grpc_call_finish,
)
from tensorgate._native.grpc_headers cimport grpc_call_admit, grpc_call_take_header
from tensorgate._native.grpc_message cimport (
    MESSAGE_BAD_FLAG,
    MESSAGE_COMPLETE,
    MESSAGE_INCOMPLETE,
    MESSAGE_TOO_LARGE,
    AssemblerResult,
    Message,
    assembler_free,
    assembler_init,
    assembler_is_between_messages,
    assembler_place,
    assembler_push,
    assembler_take,
    message_free,
)
from tensorgate._native.grpc_state cimport GrpcCall, GrpcLimits, GrpcServer, count_held, is_over_budget
from tensorgate._native.grpc_submit cimport grpc_call_submit
from tensorgate._native.grpc_wire cimport ENCODING_GZIP, ENCODING_IDENTITY
from tensorgate._native.compressed_messages cimport (
    INFLATE_DONE,
    INFLATE_MALFORMED,
    INFLATE_TOO_LARGE,
    InflateResult,
    inflate_message,
)
from tensorgate._native.http2_connection cimport http2_server_init
from tensorgate._native.http2_state cimport Http2Connection, Http2Handler, Http2Limits, Http2Stream
from tensorgate._native.http2_stream cimport stream_give_back
from tensorgate._native.inflater cimport Inflation, inflater_init, inflater_submit
from tensorgate._native.posix cimport atomic_add
from tensorgate._native.request_end cimport dispatcher_cancel
from tensorgate._native.status_codes cimport DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED
from tensorgate._native.zlib_api cimport GZIP_WINDOW_BITS, ZLIB_WINDOW_BITS


cdef enum:
    # Bytes of messages that wait for Python before the client has to.
    MAX_UNACKNOWLEDGED = 1024 * 1024
    # A compressed message of this size is at worst a thousand times as long, and takes milliseconds then.
    MAX_INFLATED_HERE = 8 * 1024


# --- messages of the client's -----------------------------------------------------------------------------------------


cdef void _take_message(GrpcCall* call) noexcept nogil:
    """The assembler has a whole message."""
    cdef Message message
    assembler_take(&call.assembler, &message)
    call.server.counters.received_bytes += message.size
    if not message.compressed:
        _take_plain(call, &message)
    elif call.encoding == ENCODING_IDENTITY:
        message_free(&message)
        grpc_call_fail(call, INTERNAL, "Compressed flag set with identity or empty encoding")
    else:
        # What is compressed is in malloc's memory.
        _inflate(call, message.data, message.size)


cdef void _take_plain(GrpcCall* call, Message* message) noexcept nogil:
    """Takes the message's content over."""
    if call.handle is not NULL:
        # Such calls have no arena: their messages are in malloc's memory.
        call.unacknowledged += message.size
        if not call_event_push(
            call.server.events, EVENT_MESSAGE, call.handle, message.data, message.size, 0, -1,
        ):
            grpc_call_fail(call, RESOURCE_EXHAUSTED, "Out of memory")
        return
    if call.has_message:
        message_free(message)
        _fail_second_message(call)
        return
    call.has_message = True
    call.message = message[0]
    call.message_size = message.size


cdef void _fail_second_message(GrpcCall* call) noexcept nogil:
    grpc_call_fail(call, INTERNAL, "A unary call has one request message, this one has more")


cdef void _inflate(GrpcCall* call, uint8_t* data, size_t size) noexcept nogil:
    """Large ones of unary calls go to another thread; methods that Python serves have no large messages to wait for."""
    cdef GrpcServer* server = call.server
    cdef int window_bits = GZIP_WINDOW_BITS if call.encoding == ENCODING_GZIP else ZLIB_WINDOW_BITS
    cdef size_t max_size = server.limits.max_message_size
    cdef Message inflated
    cdef InflateResult result
    if size > MAX_INFLATED_HERE and call.handle is NULL and not call.has_message:
        call.inflation = inflater_submit(
            &server.inflater, server.http2.loop, data, size, window_bits, max_size, _on_inflated, call)
        if call.inflation is not NULL:
            call.has_message = True
            call.message_size = size
            return
    memset(&inflated, 0, sizeof(Message))
    result = inflate_message(data, size, window_bits, max_size, &inflated.data, &inflated.size)
    free(data)
    if result == INFLATE_DONE:
        _take_plain(call, &inflated)
    else:
        _fail_inflation(call, result)


cdef void _fail_inflation(GrpcCall* call, InflateResult result) noexcept nogil:
    if result == INFLATE_TOO_LARGE:
        grpc_call_fail(call, RESOURCE_EXHAUSTED, "Received message larger than max, once decompressed")
    elif result == INFLATE_MALFORMED:
        grpc_call_fail(call, INTERNAL, "Failed to decompress message")
    else:
        grpc_call_fail(call, RESOURCE_EXHAUSTED, "Out of memory")


cdef void _on_inflated(Inflation* inflation) noexcept nogil:
    """The message of a unary call is back from the other thread; all else of its request may have come meanwhile."""
    cdef GrpcCall* call = <GrpcCall*>inflation.owner
    call.inflation = NULL
    if call.is_answered:
        free(inflation.out)
        return
    call.message_size = 0
    if inflation.result != INFLATE_DONE:
        _fail_inflation(call, inflation.result)
        return
    call.message.data = inflation.out
    call.message.size = inflation.out_size
    call.message_size = inflation.out_size
    count_held(call)
    if is_over_budget(call.server):
        grpc_call_fail_for_memory(call)
    elif call.has_ended:
        grpc_call_submit(call)


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


cdef size_t _place_for(Http2Stream* stream, uint8_t** place) noexcept nogil:
    return assembler_place(&(<GrpcCall*>stream).assembler, place)


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
            grpc_call_fail(call, INTERNAL, "A message begins with a byte that is neither 0 nor 1")
        else:
            grpc_call_fail(call, RESOURCE_EXHAUSTED, "Out of memory")
    count_held(call)
    if not call.is_answered and is_over_budget(call.server):
        grpc_call_fail_for_memory(call)
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
        grpc_call_fail(call, INTERNAL, "The stream ended in the middle of a message")
    elif call.handle is not NULL:
        call_event_push(call.server.events, EVENT_END, call.handle, NULL, 0, 0, -1)
    elif not call.has_message:
        # A unary call without its message; an empty message would be there, with a prefix.
        grpc_call_fail(call, INTERNAL, "")
    elif call.inflation is NULL:
        grpc_call_submit(call)


cdef void grpc_call_acknowledge(GrpcCall* call, size_t size) noexcept nogil:
    call.unacknowledged -= min(size, call.unacknowledged)
    count_held(call)
    if call.withheld and call.unacknowledged <= MAX_UNACKNOWLEDGED:
        stream_give_back(&call.stream, call.withheld)
        call.withheld = 0


# --- a call's life ----------------------------------------------------------------------------------------------------


cdef void _on_header(
    Http2Stream* stream, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size,
) noexcept nogil:
    cdef GrpcCall* call = <GrpcCall*>stream
    if not call.is_started:  # else they are trailers
        grpc_call_take_header(call, name, name_size, value, value_size)


cdef void _on_headers_end(Http2Stream* stream) noexcept nogil:
    cdef GrpcCall* call = <GrpcCall*>stream
    if call.is_started:
        return
    call.is_started = True
    call.server.counters.started += 1
    if grpc_call_admit(call):
        _start(call)


cdef void _start(GrpcCall* call) noexcept nogil:
    cdef GrpcServer* server = call.server
    cdef int64_t now_us = server.http2.loop.now_us
    if call.timeout_us >= 0:
        call.deadline_us = now_us + call.timeout_us
        if call.timeout_us == 0:
            grpc_call_fail(call, DEADLINE_EXCEEDED, "Deadline Exceeded")
            return
        if not timer_set(server.http2.loop, &call.timer, call.deadline_us):
            grpc_call_fail(call, RESOURCE_EXHAUSTED, "Out of memory")
            return
    if call.method.number != 0:
        call.assembler.arena = server.dispatcher.arena
        return
    if not call.metadata.failed:
        call.handle = call_handle_new(call, server.http2.loop)
    if call.handle is NULL:
        grpc_call_fail(call, RESOURCE_EXHAUSTED, "Out of memory")
        return
    if not call_event_push(
        server.events, EVENT_START, call.handle, call.metadata.data, call.metadata.size, call.method - server.methods,
        call.deadline_us,
    ):
        grpc_call_fail(call, RESOURCE_EXHAUSTED, "Out of memory")
    # The event's now.
    writer_init(&call.metadata)


cdef void _on_deadline(Timer* timer) noexcept nogil:
    cdef GrpcCall* call = <GrpcCall*>timer.owner
    if call.handle is not NULL:
        _leave_python(call)
    if call.first_out is not NULL:
        # What waits to go may wait for ever, and a status could only follow a whole message.
        grpc_call_abandon(call)
    else:
        grpc_call_fail(call, DEADLINE_EXCEEDED, "Deadline Exceeded")


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
    call_event_push(call.server.events, EVENT_CLOSED, call.handle, NULL, 0, 0, -1)
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
    if call.inflation is not NULL:
        call.inflation.owner = NULL
    grpc_call_drop_answer(call)
    assembler_free(&call.assembler)
    message_free(&call.message)
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
    inflater_init(&server.inflater)
    server.http2.handler.owner = server
    server.http2.handler.on_request = _on_request
    server.http2.handler.on_header = _on_header
    server.http2.handler.on_headers_end = _on_headers_end
    server.http2.handler.on_data = _on_data
    server.http2.handler.place_for = _place_for
    server.http2.handler.on_end = _on_end
    server.http2.handler.on_close = _on_close
    return True
