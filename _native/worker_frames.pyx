"""Sends requests and cancels to one worker, and takes its replies; without the GIL.

Third stage of a request's line, where the gateway ends: dispatcher → worker_frames ‖ worker loop. The sockets have no
high-water mark: the dispatcher's credit bounds what is under way, and ZeroMQ must never refuse or drop.

Source: the frames' headers are those of frame_header.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, strchr, strlen

from tensorgate._native.byte_writer cimport writer_free
from tensorgate._native.dispatcher_state cimport Dispatcher
from tensorgate._native.frame_header cimport RequestHeader, read_reply_header, write_cancel_header, write_request_header
from tensorgate._native.frame_stream cimport (
    STREAM_MESSAGE,
    connect_to_path,
    stream_close,
    stream_flush,
    stream_open,
    stream_receive,
    stream_send,
)
from tensorgate._native.reply_memory cimport is_shared_with_worker, message_of_reply
from tensorgate._native.request_memory cimport (
    RequestBlock,
    message_of_block,
    place_of_block,
    request_block_give_back,
    request_block_take,
)
from tensorgate._native.status_codes cimport INTERNAL
from tensorgate._native.zmq_api cimport (
    ZMQ_DEALER,
    ZMQ_DONTWAIT,
    ZMQ_PUSH,
    ZMQ_RECONNECT_IVL,
    ZMQ_SNDMORE,
    message_of_copy,
    open_socket,
    set_option,
    use_curve_as_client,
    zmq,
)


cdef enum:
    # A worker binds its endpoints some time after it was started; connecting is tried this often.
    RECONNECT_INTERVAL_MS = 10
    # Of zmq.h; names then stand for their IPv6 addresses alone, so it is for addresses that are such.
    ZMQ_IPV6 = 42
    MAX_COPIED_BYTES = 4 * 1024 * 1024

cdef const char* MISPLACED_TEXT = "The worker's reply is not where it says, in the memory that it shares with us."


cdef bint _open_stream(Line* line, const char* path) noexcept nogil:
    cdef int fd
    if path[0] == 0:
        return False
    fd = connect_to_path(path)
    return fd >= 0 and stream_open(&line.stream, line.dispatcher.loop, fd)


cdef bint _connect(Line* line, void* socket, const char* endpoint, const LineOptions* options) noexcept nogil:
    return (
        socket is not NULL
        and (options.secret_key[0] == 0 or use_curve_as_client(socket, options.public_key, options.secret_key))
        and set_option(socket, ZMQ_RECONNECT_IVL, RECONNECT_INTERVAL_MS)
        and (strchr(endpoint, b"[") is NULL or set_option(socket, ZMQ_IPV6, 1))
        and zmq.connect(socket, endpoint) == 0
    )


cdef bint open_sockets(Line* line, const LineOptions* options) noexcept nogil:
    line.cancels = open_socket(line.dispatcher.context, ZMQ_PUSH)
    if not _connect(line, line.cancels, options.cancel_endpoint, options):
        return False
    if _open_stream(line, options.stream_path):
        return True
    line.data = open_socket(line.dispatcher.context, ZMQ_DEALER)
    return _connect(line, line.data, options.data_endpoint, options)


cdef void close_sockets(Line* line) noexcept nogil:
    stream_close(&line.stream)
    if line.data is not NULL:
        zmq.close(line.data)
    if line.cancels is not NULL:
        zmq.close(line.cancels)


cdef bint _send_header(Dispatcher* dispatcher, void* socket, int flags) noexcept nogil:
    cdef zmq_msg_t frame
    if dispatcher.header.failed:
        writer_free(&dispatcher.header)
        return False
    if not message_of_copy(&frame, dispatcher.header.data, dispatcher.header.size):
        return False
    if zmq.msg_send(&frame, socket, flags) < 0:
        zmq.msg_close(&frame)
        return False
    return True


cdef bint _share(Line* line, Request* request) noexcept nogil:
    """Whether the payload is where the worker can read it: it came there, or is copied there now."""
    cdef RequestBlock* block
    cdef zmq_msg_t message
    if line.replies is NULL or not has_stream(line) or not is_shared_with_worker(line.replies):
        return False
    if request.block is not NULL:
        return True
    # What is larger is sent piece by piece, so that nobody waits for the copying.
    if request.payload_size > MAX_COPIED_BYTES:
        return False
    block = request_block_take(line.dispatcher.arena, request.payload_size)
    if block is NULL:
        return False
    if not message_of_block(&message, block):
        request_block_give_back(block)
        return False
    memcpy(block.data, zmq.msg_data(&request.payload), request.payload_size)
    zmq.msg_move(&request.payload, &message)
    request.block = block
    return True


cdef bint send_request(Line* line, Request* request, uint64_t servable_handle, int64_t remaining_us) noexcept nogil:
    cdef Dispatcher* dispatcher = line.dispatcher
    cdef RequestHeader header
    cdef zmq_msg_t end
    cdef zmq_msg_t nothing
    header.epoch = line.epoch
    header.request_id = request.request_id
    header.method = request.method
    header.servable_handle = servable_handle
    header.remaining_deadline_us = remaining_us
    header.priority = request.priority
    header.sampled = request.sampled
    header.traceparent = request.traceparent
    header.traceparent_size = request.traceparent_size
    header.has_place = _share(line, request)
    if header.has_place:
        header.place = place_of_block(request.block)
    dispatcher.header.size = 0
    write_request_header(&dispatcher.header, &header)
    if has_stream(line):
        if dispatcher.header.failed:
            return False
        if header.has_place:
            # The payload stays with the request, until the worker has replied or is dead.
            zmq.msg_init(&nothing)
            return stream_send(&line.stream, dispatcher.header.data, dispatcher.header.size, &nothing)
        request.block = NULL
        return stream_send(&line.stream, dispatcher.header.data, dispatcher.header.size, &request.payload)
    if not _send_header(dispatcher, line.data, ZMQ_DONTWAIT | ZMQ_SNDMORE):
        return False
    request.block = NULL
    if zmq.msg_send(&request.payload, line.data, ZMQ_DONTWAIT) >= 0:
        return True
    # Whatever goes next must not become this message's second frame.
    zmq.msg_init(&end)
    if zmq.msg_send(&end, line.data, ZMQ_DONTWAIT) < 0:
        zmq.msg_close(&end)
    return False


cdef void flush_requests(Line* line) noexcept nogil:
    if has_stream(line):
        stream_flush(&line.stream)


cdef void send_cancel(Line* line, uint64_t request_id) noexcept nogil:
    cdef Dispatcher* dispatcher = line.dispatcher
    dispatcher.header.size = 0
    write_cancel_header(&dispatcher.header, line.epoch, request_id)
    _send_header(dispatcher, line.cancels, ZMQ_DONTWAIT)


cdef Found _receive_from_stream(
    Line* line, zmq_msg_t* header_frame, ReplyHeader* header, zmq_msg_t* payload,
) noexcept nogil:
    cdef const uint8_t* bytes
    cdef size_t size
    # A stream that is broken has nothing either: that its worker has died is the supervisor's to find out and say.
    if stream_receive(&line.stream, &bytes, &size, payload) != STREAM_MESSAGE:
        return FOUND_NOTHING
    zmq.msg_close(header_frame)
    if not message_of_copy(header_frame, bytes, size):
        zmq.msg_init(header_frame)
        return FOUND_FOREIGN
    if not read_reply_header(<const uint8_t*>zmq.msg_data(header_frame), size, header) or header.epoch != line.epoch:
        return FOUND_FOREIGN
    if header.has_place:
        zmq.msg_close(payload)
        if not message_of_reply(payload, line.replies, &header.place):
            zmq.msg_init(payload)
            header.code = INTERNAL
            header.message = <const uint8_t*>MISPLACED_TEXT
            header.message_size = strlen(MISPLACED_TEXT)
    return FOUND_REPLY


cdef Found receive_reply(
        Line* line, zmq_msg_t* header_frame, ReplyHeader* header, zmq_msg_t* payload) noexcept nogil:
    cdef zmq_msg_t surplus
    cdef bint is_reply, has_more
    zmq.msg_init(header_frame)
    zmq.msg_init(payload)
    if has_stream(line):
        return _receive_from_stream(line, header_frame, header, payload)
    if zmq.msg_recv(header_frame, line.data, ZMQ_DONTWAIT) < 0:
        return FOUND_NOTHING
    # The frames of a message arrive together.
    is_reply = zmq.msg_more(header_frame) and zmq.msg_recv(payload, line.data, ZMQ_DONTWAIT) >= 0
    has_more = is_reply and zmq.msg_more(payload)
    while has_more:
        is_reply = False
        zmq.msg_init(&surplus)
        has_more = zmq.msg_recv(&surplus, line.data, ZMQ_DONTWAIT) >= 0 and zmq.msg_more(&surplus)
        zmq.msg_close(&surplus)
    if (
        is_reply
        and read_reply_header(<const uint8_t*>zmq.msg_data(header_frame), zmq.msg_size(header_frame), header)
        and header.epoch == line.epoch
    ):
        return FOUND_REPLY
    return FOUND_FOREIGN
