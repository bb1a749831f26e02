"""Memory that the gateway shares with a worker of its host: made, sealed, mapped, given back.

Under the third stage of a large request's line (dispatcher → frames ‖ worker loop). It is a memfd: it needs no file
system, so no room in /dev/shm, and it is gone with the last process that has it. It is sealed at its size, since memory
that the other side could cut off would end whoever reads it with SIGBUS.

Source: memfd_create(2), fcntl(2) on F_ADD_SEALS, mmap(2), madvise(2) on MADV_REMOVE.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t
from libc.string cimport memset
from posix.unistd cimport close, ftruncate

from tensorgate._native.posix cimport (
    F_ADD_SEALS,
    F_GET_SEALS,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    MADV_REMOVE,
    MAP_FAILED,
    MAP_SHARED,
    MFD_ALLOW_SEALING,
    MFD_CLOEXEC,
    PROT_READ,
    PROT_WRITE,
    fcntl,
    fstat,
    madvise,
    memfd_create,
    mmap,
    munmap,
    stat_t,
)

cdef enum:
    MAGIC = 0x7467736861726564  # "tgshared"

# The name under which /proc/PID/maps has it.
cdef const char* NAME = "tensorgate"


cdef int _seals() noexcept nogil:
    return F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL


cdef size_t _begin_of(size_t size) noexcept nogil:
    """Behind the header's page and the table."""
    cdef size_t table = size // BLOCK_UNIT * sizeof(int64_t)
    return BLOCK_UNIT + (table + BLOCK_UNIT - 1) // BLOCK_UNIT * BLOCK_UNIT


cdef int _create(size_t size) noexcept nogil:
    cdef SharedHeader* header
    cdef int fd
    size = size // BLOCK_UNIT * BLOCK_UNIT
    fd = memfd_create(NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING)
    if fd < 0:
        return -1
    if ftruncate(fd, <int64_t>size) != 0 or fcntl(fd, F_ADD_SEALS, _seals()) != 0:
        close(fd)
        return -1
    header = <SharedHeader*>mmap(NULL, BLOCK_UNIT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
    if <void*>header == MAP_FAILED:
        close(fd)
        return -1
    header.magic = MAGIC
    header.size = size
    munmap(header, BLOCK_UNIT)
    return fd


cdef int shared_memory_new(SharedMemory* memory, size_t size) except -1:
    cdef int fd
    memset(memory, 0, sizeof(SharedMemory))
    if not MIN_SHARED_BYTES <= size <= MAX_SHARED_BYTES:
        raise ValueError(
            f"shared memory has from {<size_t>MIN_SHARED_BYTES} to {<size_t>MAX_SHARED_BYTES} bytes; was {size}")
    fd = _create(size)
    if fd >= 0 and shared_memory_map(memory, fd, True):
        return fd
    if fd >= 0:
        close(fd)
    raise OSError(f"{size} bytes of memory to be shared with workers cannot be had")


cdef bint shared_memory_map(SharedMemory* memory, int fd, bint is_writable) noexcept nogil:
    cdef stat_t status
    cdef size_t size
    cdef void* mapped
    memset(memory, 0, sizeof(SharedMemory))
    if fcntl(fd, F_GET_SEALS, 0) != _seals() or fstat(fd, &status) != 0:
        return False
    size = <size_t>status.st_size
    if not MIN_SHARED_BYTES <= size <= MAX_SHARED_BYTES or size % BLOCK_UNIT:
        return False
    mapped = mmap(NULL, size, PROT_READ | PROT_WRITE if is_writable else PROT_READ, MAP_SHARED, fd, 0)
    if mapped == MAP_FAILED:
        return False
    memory.header = <SharedHeader*>mapped
    memory.size = size
    if memory.header.magic != MAGIC or memory.header.size != size:
        shared_memory_unmap(memory)
        return False
    memory.begin = _begin_of(size)
    memory.generations = <int64_t*>address_of(memory, BLOCK_UNIT)
    return True


cdef void shared_memory_unmap(SharedMemory* memory) noexcept nogil:
    if memory.header is not NULL:
        munmap(memory.header, memory.size)
        memory.header = NULL


cdef void trim_if_unused(SharedMemory* memory, BlockMap* blocks) noexcept nogil:
    cdef size_t kept = memory.begin + KEPT_BYTES
    if blocks.used or blocks.reached <= kept:
        return
    # Where it fails the pages stay, and all goes on.
    madvise(address_of(memory, kept), blocks.reached - kept, MADV_REMOVE)
    blocks.reached = kept
