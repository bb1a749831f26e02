"""A native thread's event loop: descriptors, timers, tasks from other threads. Everything runs without the GIL.

All structs are the caller's memory and must stay where they are while the loop knows them. But for loop_post and
loop_stop, every function is for the loop's own thread (or for before it starts and after it has ended).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t

from tensorgate._native.posix cimport epoll_event, pthread_mutex_t, pthread_t

cdef enum:
    MAX_EVENTS = 256


cdef struct Watch:
    int fd
    # events: EPOLLIN, EPOLLOUT, … ; level-triggered. May unwatch itself and any other.
    void (*on_ready)(Watch* watch, uint32_t events) noexcept nogil
    void* owner


cdef struct Task:
    Task* next
    # On the loop's thread, in the order of posting; the task is the callee's from then on.
    void (*run)(Task* task) noexcept nogil
    void* owner


cdef struct Timer:
    int64_t due_us   # monotonic clock
    int64_t index    # in the loop's heap; -1: not set. Start a timer's life with timer_init.
    void (*on_due)(Timer* timer) noexcept nogil
    void* owner


cdef struct Hook:
    # Called each time the loop has dealt with what was ready and is about to wait again, in the order of adding.
    Hook* next
    void (*run)(Hook* hook) noexcept nogil
    void* owner


cdef struct LoopThread:
    # One that turns the loop, or did so until another one replaced it.
    LoopThread* previous
    EventLoop* loop
    pthread_t thread
    int64_t has_ended    # set by the thread itself


cdef struct EventLoop:
    int epoll_fd
    int wake_fd
    Watch wake
    epoll_event events[MAX_EVENTS]
    int num_events       # of the turn under way
    pthread_mutex_t mutex  # guards the tasks
    Task* first_task
    Task* last_task
    Timer** timers       # binary heap, earliest first
    size_t num_timers
    size_t timers_capacity
    Hook* first_hook
    Hook* last_hook
    int64_t stopping     # set by any thread
    int64_t now_us       # of the turn under way, monotonic clock
    bint is_running
    LoopThread* newest   # the one that turns the loop; read by those it has replaced, so changed by swap_pointer


# False: out of descriptors or memory; nothing is to be freed then.
cdef bint loop_init(EventLoop* loop) noexcept nogil
# After its thread has ended. Tasks that were posted too late to run stay unrun and are run here.
cdef void loop_free(EventLoop* loop) noexcept nogil
cdef bint loop_start(EventLoop* loop) noexcept nogil
# One turn in the calling thread, without waiting, of a loop that was not started; for tests.
cdef void loop_turn(EventLoop* loop, bint run_timers) noexcept nogil
# For another thread, while the loop's own is known to be in a hook: a new thread turns the loop from here on. The old
# one ends when its hook returns, and touches nothing of the loop's until then. False: there is no thread to be had.
cdef bint loop_replace_thread(EventLoop* loop) noexcept nogil
# Any thread. The loop ends after the turn in which it hears of it; loop_join waits for that.
cdef void loop_stop(EventLoop* loop) noexcept nogil
cdef void loop_join(EventLoop* loop) noexcept nogil
# Any thread, but not after loop_free.
cdef void loop_post(EventLoop* loop, Task* task) noexcept nogil
# For another thread, while the loop runs: has it call run(argument), after what was posted before; blocks until it has.
cdef void loop_call(EventLoop* loop, void (*run)(void* argument) noexcept nogil, void* argument) noexcept nogil
cdef bint loop_watch(EventLoop* loop, Watch* watch, uint32_t events) noexcept nogil
cdef bint loop_rewatch(EventLoop* loop, Watch* watch, uint32_t events) noexcept nogil
# The watch may be freed and its descriptor closed afterwards, also from inside a callback of the same turn.
cdef void loop_unwatch(EventLoop* loop, Watch* watch) noexcept nogil
cdef void loop_add_hook(EventLoop* loop, Hook* hook) noexcept nogil
# Not from inside a hook.
cdef void loop_remove_hook(EventLoop* loop, Hook* hook) noexcept nogil
cdef void timer_init(Timer* timer, void (*on_due)(Timer*) noexcept nogil, void* owner) noexcept nogil
# Sets or moves a timer; False: out of memory, and the timer is not set. It fires up to a millisecond late, never early.
cdef bint timer_set(EventLoop* loop, Timer* timer, int64_t due_us) noexcept nogil
cdef void timer_cancel(EventLoop* loop, Timer* timer) noexcept nogil
