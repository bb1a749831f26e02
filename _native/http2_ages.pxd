"""Ages of HTTP/2 connections: keepalive, idleness, their end, the drain; for the thread of the server's loop."""

from tensorgate._native.event_loop cimport Timer
from tensorgate._native.http2_state cimport Http2Connection, Http2Server

# The connection's timer is due; its owner is the connection.
cdef void on_age_due(Timer* timer) noexcept nogil
# Sets the timer for whatever is due first. Times that move with the traffic are looked at again when it fires.
cdef void schedule_ages(Http2Connection* connection) noexcept nogil
# Asks the client to go elsewhere: GOAWAY in two steps, and the connection ends with its last stream.
cdef void begin_drain(Http2Connection* connection) noexcept nogil
# The same for all clients, those to come included.
cdef void http2_server_drain(Http2Server* server) noexcept nogil
