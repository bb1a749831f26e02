"""What the HTTP/2 side of a native thread consists of: a server, its connections, their streams; and its handler.

Everything here is for the thread of the server's loop. The streams' users sit behind Http2Handler and embed an
Http2Stream as the first member of what they keep for a stream. Its functions are called from inside nghttp2, so they
may submit, but nothing is sent, received or freed before the turn's end.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from tensorgate._native.event_loop cimport EventLoop, Hook, Timer, Watch
from tensorgate._native.nghttp2_api cimport nghttp2_option, nghttp2_session, nghttp2_session_callbacks
from tensorgate._native.openssl_api cimport SSL, SSL_CTX

cdef enum:
    # What one turn of a connection gathers for one send; see http2_output.
    GATHER_SIZE = 128 * 1024


cdef enum DrainStage:
    DRAIN_NONE = 0
    DRAIN_NOTICED = 1  # the client has been told to open no more streams; those on their way are still taken
    DRAIN_CLOSED = 2   # no stream is taken any more; the connection ends with its last one


cdef struct Http2Limits:
    # Times in microseconds; -1 means never.
    uint32_t max_concurrent_streams
    uint32_t max_header_list_size
    int32_t stream_window
    int32_t connection_window
    int64_t max_connection_age_us
    int64_t max_connection_age_grace_us
    int64_t max_connection_idle_us
    int64_t keepalive_time_us
    int64_t keepalive_timeout_us
    # A connection that does not take its replies is not read from while it holds more than this.
    size_t max_unsent_bytes


cdef struct Http2Stream:
    Http2Connection* connection
    int32_t stream_id
    Http2Stream* previous
    Http2Stream* next


cdef struct Http2Handler:
    void* owner
    # A new stream for a request; NULL refuses it. The connection sets the struct's fields.
    Http2Stream* (*on_request)(Http2Handler*, Http2Connection*) noexcept nogil
    # Names are lower case, pseudo-headers come first; the bytes are valid during the call only.
    void (*on_header)(
        Http2Stream*, const uint8_t* name, size_t name_size, const uint8_t* value, size_t value_size) noexcept nogil
    void (*on_headers_end)(Http2Stream*) noexcept nogil
    # True gives the client its window back at once; else the handler does, by stream_give_back.
    bint (*on_data)(Http2Stream*, const uint8_t* data, size_t size) noexcept nogil
    # Where the stream's next bytes of DATA may be received, so that on_data finds them in their place, and how many at
    # most; 0: they come as all others do. What is received there is passed to on_data before anything else happens.
    size_t (*place_for)(Http2Stream*, uint8_t** place) noexcept nogil
    # The client sends no more.
    void (*on_end)(Http2Stream*) noexcept nogil
    # Once for each stream, whatever ends it: the stream is the handler's to free.
    void (*on_close)(Http2Stream*) noexcept nogil


cdef struct Http2Counters:
    # Written by the loop's thread, read by any: a value may be a moment old.
    uint64_t accepted
    uint64_t closed
    uint64_t streams
    uint64_t protocol_errors   # connections that nghttp2 gave up
    uint64_t rapid_resets      # connections closed for resetting streams, or having them reset, too fast
    uint64_t keepalive_deaths
    uint64_t tls_failures      # connections whose handshake failed


cdef struct Http2Server:
    EventLoop* loop
    Http2Limits limits
    Http2Handler handler
    nghttp2_session_callbacks* callbacks
    nghttp2_option* option
    Http2Connection* connections
    int64_t num_connections    # atomic: the acceptor compares threads
    int64_t num_streams        # atomic
    Http2Connection* to_flush
    Hook flush_hook
    SSL_CTX* tls               # of new connections; NULL: they are in the clear. Somebody else's
    uint8_t* received          # READ_SIZE bytes
    uint8_t* gathered          # GATHER_SIZE bytes
    DrainStage drain_stage     # of the server: new connections are drained at once
    Http2Counters counters


cdef struct FrameCursor:
    # Where the next byte that comes belongs, as far as HTTP/2's framing tells.
    size_t preface_left        # bytes of the connection's preface
    uint8_t header[9]
    size_t header_size         # how much of the header has come
    size_t left                # of the payload, once all of the header has


cdef struct Http2Connection:
    Http2Server* server
    Http2Connection* previous
    Http2Connection* next
    Http2Connection* next_to_flush
    Watch watch
    SSL* ssl                   # NULL: in the clear
    bint is_tls_up             # the handshake is done
    bint is_tls_broken
    bint tls_reads_by_writing  # the last read waits for room to write, in the course of a handshake
    bint tls_writes_by_reading  # and the last write for bytes to read
    nghttp2_session* session
    FrameCursor cursor
    int num_exact_reads        # so many more times it is read no further than a frame's end
    Http2Stream* streams
    int64_t num_streams
    uint8_t* unsent            # what the socket did not take
    size_t unsent_size
    size_t unsent_offset
    size_t held_bytes          # of replies, counted by the handler
    uint32_t watched           # epoll events
    bint is_marked             # in to_flush
    bint is_doomed             # to be closed at the turn's end
    bint is_ending             # as soon as all is written
    bint has_preface
    DrainStage drain_stage
    Timer timer
    int64_t opened_us
    int64_t received_us        # the last time anything came
    int64_t idle_since_us
    int64_t ping_us            # when a keepalive ping was sent that has no answer yet; -1
    int64_t goaway_us          # when DRAIN_NOTICED becomes DRAIN_CLOSED
    int64_t kill_us            # when it is closed whatever runs; -1
    int64_t age_us             # when it has reached its age; -1
    int32_t last_stream_id     # the highest that has come; before the first -1
    int32_t skipped_from       # the last gap that identifiers of streams have left
    int32_t skipped_to
    double reset_tokens
    int64_t reset_tokens_us


# --- the turn's end ---------------------------------------------------------------------------------------------------

cdef inline void mark_to_flush(Http2Connection* connection) noexcept nogil:
    if not connection.is_marked:
        connection.is_marked = True
        connection.next_to_flush = connection.server.to_flush
        connection.server.to_flush = connection


cdef inline void doom(Http2Connection* connection) noexcept nogil:
    connection.is_doomed = True
    mark_to_flush(connection)
