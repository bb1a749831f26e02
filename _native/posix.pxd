"""What the native threads use of POSIX and Linux, beyond what Cython's libc and posix packages declare.

Source: pthreads(7), eventfd(2), epoll(7), socket(7), tcp(7), memfd_create(2), and GCC's __atomic built-ins (all
with sequentially consistent order: none of them is on a path where a weaker one could be measured).
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix.time cimport timespec


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_create(pthread_t*, void*, void* (*start)(void*) noexcept nogil, void*)
    int pthread_join(pthread_t, void**)
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_cond_init(pthread_cond_t*, void*)
    int pthread_cond_destroy(pthread_cond_t*)
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*)
    int pthread_cond_timedwait(pthread_cond_t*, pthread_mutex_t*, const timespec*)
    int pthread_cond_signal(pthread_cond_t*)
    int pthread_cond_broadcast(pthread_cond_t*)


cdef extern from *:
    """
    #ifndef TENSORGATE_CONDITIONS
    #define TENSORGATE_CONDITIONS
    #include <pthread.h>
    #include <time.h>
    static inline int tensorgate_cond_init_monotonic(pthread_cond_t* cond) {
      pthread_condattr_t attributes;
      pthread_condattr_init(&attributes);
      pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
      int code = pthread_cond_init(cond, &attributes);
      pthread_condattr_destroy(&attributes);
      return code;
    }
    #endif
    """
    # One whose timed waits are on the monotonic clock.
    int cond_init_monotonic "tensorgate_cond_init_monotonic" (pthread_cond_t* cond) noexcept nogil


cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int, int)
    int eventfd_write(int, uint64_t)
    int eventfd_read(int, uint64_t*)
    int EFD_NONBLOCK
    int EFD_CLOEXEC


cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        void* ptr
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int epoll_fd, int operation, int fd, epoll_event*)
    int epoll_wait(int epoll_fd, epoll_event*, int max_events, int timeout_ms)
    int EPOLL_CLOEXEC
    int EPOLL_CTL_ADD
    int EPOLL_CTL_MOD
    int EPOLL_CTL_DEL
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLRDHUP


cdef extern from "<sys/mman.h>" nogil:
    int memfd_create(const char* name, unsigned int flags)
    void* mmap(void* address, size_t size, int protection, int flags, int fd, int64_t offset)
    int munmap(void* address, size_t size)
    int madvise(void* address, size_t size, int advice)
    void* MAP_FAILED
    int MAP_SHARED
    int PROT_READ
    int PROT_WRITE
    int MADV_REMOVE
    int MFD_CLOEXEC
    int MFD_ALLOW_SEALING


cdef extern from "<fcntl.h>" nogil:
    int fcntl(int fd, int command, ...)
    int open_path "open"(const char* path, int flags)
    int F_ADD_SEALS
    int F_GET_SEALS
    int F_SEAL_SEAL
    int F_SEAL_SHRINK
    int F_SEAL_GROW
    int O_RDONLY
    int O_CLOEXEC


cdef extern from "<sys/stat.h>" nogil:
    cdef struct stat_t "stat":
        int64_t st_size
    int fstat(int fd, stat_t* status)


cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    Py_ssize_t readv(int fd, const iovec* parts, int num_parts)


cdef extern from "<sys/socket.h>" nogil:
    Py_ssize_t recv(int fd, void* buffer, size_t size, int flags)
    Py_ssize_t send(int fd, const void* data, size_t size, int flags)
    int accept4(int fd, void* address, void* address_size, int flags)
    int setsockopt(int fd, int level, int option, const void* value, unsigned int size)
    int socket(int family, int kind, int protocol)
    cdef struct sockaddr:
        pass
    int bind(int fd, const sockaddr*, unsigned int size)
    int listen(int fd, int backlog)
    int connect(int fd, const sockaddr*, unsigned int size)
    cdef struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    Py_ssize_t sendmsg(int fd, const msghdr*, int flags)
    int AF_UNIX
    int SOCK_STREAM
    int MSG_NOSIGNAL
    int SOCK_NONBLOCK
    int SOCK_CLOEXEC


cdef extern from "<sys/un.h>" nogil:
    cdef struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]


cdef extern from "<netinet/in.h>" nogil:
    int IPPROTO_TCP


cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_NODELAY


cdef extern from *:
    """
    #ifndef TENSORGATE_ATOMICS
    #define TENSORGATE_ATOMICS
    #include <stdint.h>
    static inline int64_t tensorgate_atomic_add(int64_t* number, int64_t change) {
      return __atomic_add_fetch(number, change, __ATOMIC_SEQ_CST);
    }
    static inline int64_t tensorgate_atomic_load(int64_t* number) { return __atomic_load_n(number, __ATOMIC_SEQ_CST); }
    static inline void tensorgate_atomic_store(int64_t* number, int64_t value) {
      __atomic_store_n(number, value, __ATOMIC_SEQ_CST);
    }
    static inline void* tensorgate_load_pointer(void* place) {
      return __atomic_load_n((void**)place, __ATOMIC_SEQ_CST);
    }
    static inline void* tensorgate_swap_pointer(void* place, void* value) {
      return __atomic_exchange_n((void**)place, value, __ATOMIC_SEQ_CST);
    }
    #endif
    """
    # The number after the change.
    int64_t atomic_add "tensorgate_atomic_add" (int64_t* number, int64_t change) noexcept nogil
    int64_t atomic_load "tensorgate_atomic_load" (int64_t* number) noexcept nogil
    void atomic_store "tensorgate_atomic_store" (int64_t* number, int64_t value) noexcept nogil
    # The pointer at place; swapping gives the former one.
    void* load_pointer "tensorgate_load_pointer" (void* place) noexcept nogil
    void* swap_pointer "tensorgate_swap_pointer" (void* place, void* value) noexcept nogil
