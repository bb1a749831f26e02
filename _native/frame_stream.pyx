"""Frames on a unix socket, read and written by the loop's own thread.

Beside ZeroMQ in the third stage of a request's line (dispatcher → frames ‖ worker loop). ZeroMQ moves every frame
through a thread of its own on either side, six wake-ups a request and answer; here there are two. Small messages are
gathered into one writev and come out of one recv; a payload that does not fit the buffer is received where it stays.

Source: unix(7), writev(2).
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset, strlen
from posix.unistd cimport close, unlink

from tensorgate._native.event_loop cimport EventLoop, Watch, loop_rewatch, loop_unwatch, loop_watch
from tensorgate._native.posix cimport (
    AF_UNIX,
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    MSG_NOSIGNAL,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    bind,
    connect,
    iovec,
    listen,
    msghdr,
    recv,
    sendmsg,
    sockaddr,
    sockaddr_un,
    socket,
)
from tensorgate._native.zmq_api cimport message_of_copy, zmq


cdef enum:
    BUFFER_BYTES = 262144
    # Messages that one writev takes; two pieces each.
    MAX_GATHERED = 64
    # More than TensorFlow can put into one message.
    MAX_PAYLOAD_BYTES = 4294967296
    BACKLOG = 64


cdef inline uint8_t* _head(OutFrame* frame) noexcept nogil:
    return <uint8_t*>frame + sizeof(OutFrame)


cdef void _break(FrameStream* stream) noexcept nogil:
    if stream.is_broken:
        return
    stream.is_broken = True
    # Whoever uses the stream finds out by receiving; until then its descriptor must not keep the loop awake.
    loop_unwatch(stream.loop, &stream.watch)


cdef void _on_ready(Watch* watch, uint32_t events) noexcept nogil:
    cdef FrameStream* stream = <FrameStream*>watch.owner
    if events & (EPOLLIN | EPOLLHUP | EPOLLERR):
        stream.may_have = True
    if events & EPOLLOUT and stream.is_blocked:
        stream.is_blocked = False
        if not loop_rewatch(stream.loop, &stream.watch, EPOLLIN):
            _break(stream)
            stream.may_have = True
        stream_flush(stream)


cdef bint stream_open(FrameStream* stream, EventLoop* loop, int fd) noexcept nogil:
    memset(stream, 0, sizeof(FrameStream))
    stream.loop = loop
    stream.watch.fd = fd
    stream.watch.on_ready = _on_ready
    stream.watch.owner = stream
    stream.buffer = <uint8_t*>malloc(BUFFER_BYTES)
    if stream.buffer is NULL or not loop_watch(loop, &stream.watch, EPOLLIN):
        free(stream.buffer)
        stream.buffer = NULL
        close(fd)
        return False
    zmq.msg_init(&stream.payload)
    return True


cdef void _drop_first(FrameStream* stream) noexcept nogil:
    cdef OutFrame* frame = stream.first_out
    stream.first_out = frame.next
    if stream.first_out is NULL:
        stream.last_out = NULL
    stream.num_out -= 1
    stream.out_offset = 0
    zmq.msg_close(&frame.payload)
    free(frame)


cdef void stream_close(FrameStream* stream) noexcept nogil:
    if stream.buffer is NULL:
        return
    if not stream.is_broken:
        _break(stream)
    close(stream.watch.fd)
    # The number may be another connection's from here on.
    stream.watch.fd = -1
    stream.may_have = False
    while stream.first_out is not NULL:
        _drop_first(stream)
    zmq.msg_close(&stream.payload)
    free(stream.buffer)
    stream.buffer = NULL


# --- out --------------------------------------------------------------------------------------------------------------


cdef bint stream_send(
    FrameStream* stream, const uint8_t* header, size_t header_size, zmq_msg_t* payload,
) noexcept nogil:
    cdef OutFrame* frame
    cdef uint64_t[2] sizes
    if stream.is_broken or header_size > MAX_STREAM_HEADER_BYTES:
        return False
    frame = <OutFrame*>malloc(sizeof(OutFrame) + STREAM_PREFIX_BYTES + header_size)
    if frame is NULL:
        return False
    sizes[0] = header_size
    sizes[1] = zmq.msg_size(payload)
    memcpy(_head(frame), sizes, STREAM_PREFIX_BYTES)
    memcpy(_head(frame) + STREAM_PREFIX_BYTES, header, header_size)
    frame.head_size = STREAM_PREFIX_BYTES + header_size
    frame.next = NULL
    zmq.msg_init(&frame.payload)
    zmq.msg_move(&frame.payload, payload)
    if stream.last_out is NULL:
        stream.first_out = frame
    else:
        stream.last_out.next = frame
    stream.last_out = frame
    stream.num_out += 1
    return True


cdef int _gather(FrameStream* stream, iovec* pieces) noexcept nogil:
    cdef OutFrame* frame = stream.first_out
    cdef size_t skip = stream.out_offset
    cdef size_t size
    cdef int count = 0
    while frame is not NULL and count + 2 <= 2 * MAX_GATHERED:
        if skip < frame.head_size:
            pieces[count].iov_base = _head(frame) + skip
            pieces[count].iov_len = frame.head_size - skip
            count += 1
            skip = 0
        else:
            skip -= frame.head_size
        size = zmq.msg_size(&frame.payload)
        if size > skip:
            pieces[count].iov_base = <uint8_t*>zmq.msg_data(&frame.payload) + skip
            pieces[count].iov_len = size - skip
            count += 1
        skip = 0
        frame = frame.next
    return count


cdef void stream_flush(FrameStream* stream) noexcept nogil:
    cdef iovec[2 * MAX_GATHERED] pieces
    cdef msghdr message
    cdef Py_ssize_t sent
    cdef size_t left
    while stream.first_out is not NULL and not stream.is_blocked and not stream.is_broken:
        memset(&message, 0, sizeof(msghdr))
        message.msg_iov = pieces
        message.msg_iovlen = _gather(stream, pieces)
        sent = sendmsg(stream.watch.fd, &message, MSG_NOSIGNAL)
        if sent < 0:
            if errno == EINTR:
                continue
            if errno == EAGAIN and loop_rewatch(stream.loop, &stream.watch, EPOLLIN | EPOLLOUT):
                stream.is_blocked = True
            else:
                _break(stream)
                stream.may_have = True
            return
        stream.out_offset += <size_t>sent
        while stream.first_out is not NULL:
            left = stream.first_out.head_size + zmq.msg_size(&stream.first_out.payload)
            if stream.out_offset < left:
                break
            left = stream.out_offset - left
            _drop_first(stream)
            stream.out_offset = left


# --- in ---------------------------------------------------------------------------------------------------------------


cdef Py_ssize_t _read(FrameStream* stream, uint8_t* target, size_t size) noexcept nogil:
    """The number of bytes; 0: none now, or never again, which is_broken tells."""
    cdef Py_ssize_t count
    while True:
        count = recv(stream.watch.fd, target, size, 0)
        if count > 0:
            return count
        if count < 0 and errno == EINTR:
            continue
        if count == 0 or errno != EAGAIN:
            _break(stream)
        return 0


cdef bint _fill(FrameStream* stream) noexcept nogil:
    """Reads more into the buffer. False: there is none now."""
    cdef Py_ssize_t count
    if stream.begin:
        memmove(stream.buffer, stream.buffer + stream.begin, stream.end - stream.begin)
        stream.end -= stream.begin
        stream.begin = 0
    count = _read(stream, stream.buffer + stream.end, BUFFER_BYTES - stream.end)
    stream.end += <size_t>count
    return count > 0


cdef StreamResult _nothing(FrameStream* stream) noexcept nogil:
    stream.may_have = False
    return STREAM_BROKEN if stream.is_broken else STREAM_EMPTY


cdef StreamResult stream_receive(
    FrameStream* stream, const uint8_t** header, size_t* header_size, zmq_msg_t* payload,
) noexcept nogil:
    cdef uint64_t[2] sizes
    cdef size_t have
    cdef Py_ssize_t count
    if stream.buffer is NULL:
        return STREAM_BROKEN
    while not stream.has_prefix:
        have = stream.end - stream.begin
        if have >= STREAM_PREFIX_BYTES:
            memcpy(sizes, stream.buffer + stream.begin, STREAM_PREFIX_BYTES)
            if sizes[0] > BUFFER_BYTES - STREAM_PREFIX_BYTES or sizes[1] > MAX_PAYLOAD_BYTES:
                _break(stream)
                return _nothing(stream)
            have -= STREAM_PREFIX_BYTES
            if have >= sizes[0] + sizes[1]:
                header[0] = stream.buffer + stream.begin + STREAM_PREFIX_BYTES
                header_size[0] = sizes[0]
                zmq.msg_close(payload)
                if not message_of_copy(payload, header[0] + sizes[0], sizes[1]):
                    zmq.msg_init(payload)
                    _break(stream)
                    return _nothing(stream)
                stream.begin += STREAM_PREFIX_BYTES + sizes[0] + sizes[1]
                return STREAM_MESSAGE
            if have >= sizes[0] and STREAM_PREFIX_BYTES + sizes[0] + sizes[1] > BUFFER_BYTES:
                # The header stays where it is until the payload is whole.
                zmq.msg_close(&stream.payload)
                if zmq.msg_init_size(&stream.payload, sizes[1]) != 0:
                    zmq.msg_init(&stream.payload)
                    _break(stream)
                    return _nothing(stream)
                have -= sizes[0]
                memcpy(
                    zmq.msg_data(&stream.payload),
                    stream.buffer + stream.begin + STREAM_PREFIX_BYTES + sizes[0], have)
                stream.has_prefix = True
                stream.header_size = sizes[0]
                stream.payload_size = sizes[1]
                stream.payload_got = have
                break
        if not _fill(stream):
            return _nothing(stream)
    while stream.payload_got < stream.payload_size:
        count = _read(
            stream, <uint8_t*>zmq.msg_data(&stream.payload) + stream.payload_got,
            stream.payload_size - stream.payload_got)
        if count == 0:
            return _nothing(stream)
        stream.payload_got += <size_t>count
    stream.has_prefix = False
    header[0] = stream.buffer + stream.begin + STREAM_PREFIX_BYTES
    header_size[0] = stream.header_size
    zmq.msg_move(payload, &stream.payload)
    # All that had come lay before the payload's end.
    stream.begin = 0
    stream.end = 0
    return STREAM_MESSAGE


# --- sockets ----------------------------------------------------------------------------------------------------------


cdef bint _set_path(sockaddr_un* address, const char* path) noexcept nogil:
    memset(address, 0, sizeof(sockaddr_un))
    address.sun_family = AF_UNIX
    if strlen(path) >= sizeof(address.sun_path):
        return False
    memcpy(address.sun_path, path, strlen(path))
    return True


cdef int listen_on_path(const char* path) noexcept nogil:
    cdef sockaddr_un address
    cdef int fd
    if not _set_path(&address, path):
        return -1
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        return -1
    if bind(fd, <sockaddr*>&address, sizeof(sockaddr_un)) != 0:
        close(fd)
        return -1
    if listen(fd, BACKLOG) != 0:
        close(fd)
        unlink(path)
        return -1
    return fd


cdef int connect_to_path(const char* path) noexcept nogil:
    cdef sockaddr_un address
    cdef int fd
    if not _set_path(&address, path):
        return -1
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        return -1
    if connect(fd, <sockaddr*>&address, sizeof(sockaddr_un)) != 0:
        close(fd)
        return -1
    return fd
