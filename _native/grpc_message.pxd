"""Assembles gRPC's length-prefixed messages out of a stream's DATA, however it is cut; one assembler a stream.

Memory grows as bytes arrive: what a prefix announces reserves at most 64 KiB more than what has come. A large message
may lie in the memory that workers read requests from; of that, which is bounded, it reserves all that it announces once
a small part of it has come.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from tensorgate._native.request_memory cimport RequestArena, RequestBlock

cdef enum:
    MESSAGE_PREFIX_BYTES = 5
    MESSAGE_FIRST_CAPACITY = 65536

ctypedef enum AssemblerResult:
    MESSAGE_INCOMPLETE     # all bytes are eaten and more are needed
    MESSAGE_COMPLETE       # assembler_take has it
    # The rest end the stream; a later push eats nothing.
    MESSAGE_TOO_LARGE      # announced is above max_message_size; told as soon as the prefix is known
    MESSAGE_BAD_FLAG       # the prefix's first byte is neither 0 nor 1
    MESSAGE_NO_MEMORY


cdef struct MessageAssembler:
    # One thread's. A prefix is a byte (1: compressed), then the message's length in four bytes, big-endian.
    uint8_t prefix[MESSAGE_PREFIX_BYTES]
    int prefix_size            # how much of the prefix has come
    bint compressed            # these two once it is whole
    size_t announced
    uint8_t* data              # NULL until the message's first byte
    RequestBlock* block        # which data is in; NULL: it is malloc'd
    size_t size                # how much of the message has come
    size_t capacity            # of data
    size_t max_message_size
    RequestArena* arena        # for large messages that are not compressed; NULL: malloc's memory for all
    bint has_no_room           # the arena had none for this message


cdef struct Message:
    uint8_t* data              # NULL when it is empty
    size_t size
    RequestBlock* block        # which data is in; NULL: it is malloc'd
    bint compressed


cdef inline size_t assembler_held(const MessageAssembler* assembler) noexcept nogil:
    """The bytes of memory that are held, for budgets; of a block, those that have been filled."""
    return assembler.size if assembler.block is not NULL else assembler.capacity


cdef void assembler_init(MessageAssembler* assembler, size_t max_message_size) noexcept nogil
# Frees what is held; the assembler is then as after init.
cdef void assembler_free(MessageAssembler* assembler) noexcept nogil
# Eats *data until one message is complete or all is eaten, and moves *data and *size on past what it ate.
cdef AssemblerResult assembler_push(MessageAssembler* assembler, const uint8_t** data, size_t* size) noexcept nogil
# Where the message's next bytes may be put before they are pushed, so that nobody copies them, and how many at most;
# 0: nowhere. Only where a message is large.
cdef size_t assembler_place(const MessageAssembler* assembler, uint8_t** place) noexcept nogil
# After MESSAGE_COMPLETE: hands the message over (to be freed with message_free) and starts the next. Until it is
# called, pushes eat nothing and return MESSAGE_COMPLETE.
cdef void assembler_take(MessageAssembler* assembler, Message* message) noexcept nogil
cdef void message_free(Message* message) noexcept nogil
# Whether a stream may end here: no message is begun, and none waits to be taken.
cdef bint assembler_is_between_messages(const MessageAssembler* assembler) noexcept nogil
