"""The event loop of a native thread: epoll, a heap of timers, and a mailbox of tasks from other threads.

Under both native data planes: the gateway's edge threads and the worker's data loop each run one. A turn waits for what
is ready, calls the watches, then the timers that are due, then the hooks, which is where a thread does what is cheaper
done once a turn than once an event: draining ZeroMQ sockets, writing out connections.

Source: epoll(7), eventfd(2).
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset
from posix.unistd cimport close

from tensorgate._native.clocks cimport monotonic_us
from tensorgate._native.posix cimport (
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLIN,
    atomic_load,
    atomic_store,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    eventfd,
    eventfd_read,
    eventfd_write,
    load_pointer,
    pthread_cond_destroy,
    pthread_cond_init,
    pthread_cond_signal,
    pthread_cond_t,
    pthread_cond_wait,
    pthread_create,
    pthread_join,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
    swap_pointer,
)


cdef enum:
    MAX_WAIT_MS = 3600000


# --- tasks ------------------------------------------------------------------------------------------------------------

cdef void _run_tasks(EventLoop* loop) noexcept nogil:
    cdef Task* task
    cdef Task* following
    pthread_mutex_lock(&loop.mutex)
    task = loop.first_task
    loop.first_task = NULL
    loop.last_task = NULL
    pthread_mutex_unlock(&loop.mutex)
    while task is not NULL:
        following = task.next
        task.run(task)
        task = following


cdef void _on_wake(Watch* watch, uint32_t events) noexcept nogil:
    cdef uint64_t ignored
    eventfd_read(watch.fd, &ignored)
    _run_tasks(<EventLoop*>watch.owner)


cdef void loop_post(EventLoop* loop, Task* task) noexcept nogil:
    cdef bint was_empty
    task.next = NULL
    pthread_mutex_lock(&loop.mutex)
    was_empty = loop.last_task is NULL
    if was_empty:
        loop.first_task = task
    else:
        loop.last_task.next = task
    loop.last_task = task
    pthread_mutex_unlock(&loop.mutex)
    if was_empty:
        eventfd_write(loop.wake_fd, 1)


cdef struct AwaitedCall:
    Task task
    void (*run)(void* argument) noexcept nogil
    void* argument
    pthread_mutex_t mutex
    pthread_cond_t done
    bint is_done


cdef void _run_awaited(Task* task) noexcept nogil:
    cdef AwaitedCall* call = <AwaitedCall*>task.owner
    call.run(call.argument)
    pthread_mutex_lock(&call.mutex)
    call.is_done = True
    pthread_cond_signal(&call.done)
    # Its caller goes on, and the call with it, once the mutex is free.
    pthread_mutex_unlock(&call.mutex)


cdef void loop_call(EventLoop* loop, void (*run)(void* argument) noexcept nogil, void* argument) noexcept nogil:
    cdef AwaitedCall call
    call.task.run = _run_awaited
    call.task.owner = &call
    call.run = run
    call.argument = argument
    call.is_done = False
    pthread_mutex_init(&call.mutex, NULL)
    pthread_cond_init(&call.done, NULL)
    loop_post(loop, &call.task)
    pthread_mutex_lock(&call.mutex)
    while not call.is_done:
        pthread_cond_wait(&call.done, &call.mutex)
    pthread_mutex_unlock(&call.mutex)
    pthread_cond_destroy(&call.done)
    pthread_mutex_destroy(&call.mutex)


# --- watches ----------------------------------------------------------------------------------------------------------

cdef bint _control(EventLoop* loop, int operation, Watch* watch, uint32_t events) noexcept nogil:
    cdef epoll_event event
    memset(&event, 0, sizeof(epoll_event))
    event.events = events
    event.data.ptr = watch
    return epoll_ctl(loop.epoll_fd, operation, watch.fd, &event) == 0


cdef bint loop_watch(EventLoop* loop, Watch* watch, uint32_t events) noexcept nogil:
    return _control(loop, EPOLL_CTL_ADD, watch, events)


cdef bint loop_rewatch(EventLoop* loop, Watch* watch, uint32_t events) noexcept nogil:
    return _control(loop, EPOLL_CTL_MOD, watch, events)


cdef void loop_unwatch(EventLoop* loop, Watch* watch) noexcept nogil:
    cdef int i
    _control(loop, EPOLL_CTL_DEL, watch, 0)
    # What was ready in the turn under way may still name it.
    for i in range(loop.num_events):
        if loop.events[i].data.ptr == <void*>watch:
            loop.events[i].data.ptr = NULL


# --- timers -----------------------------------------------------------------------------------------------------------

cdef inline void _place(EventLoop* loop, Timer* timer, size_t index) noexcept nogil:
    loop.timers[index] = timer
    timer.index = <int64_t>index


cdef void _sift_up(EventLoop* loop, Timer* timer, size_t index) noexcept nogil:
    cdef size_t parent
    while index > 0:
        parent = (index - 1) // 2
        if loop.timers[parent].due_us <= timer.due_us:
            break
        _place(loop, loop.timers[parent], index)
        index = parent
    _place(loop, timer, index)


cdef void _sift_down(EventLoop* loop, Timer* timer, size_t index) noexcept nogil:
    cdef size_t child
    while True:
        child = 2 * index + 1
        if child >= loop.num_timers:
            break
        if child + 1 < loop.num_timers and loop.timers[child + 1].due_us < loop.timers[child].due_us:
            child += 1
        if timer.due_us <= loop.timers[child].due_us:
            break
        _place(loop, loop.timers[child], index)
        index = child
    _place(loop, timer, index)


cdef void timer_init(Timer* timer, void (*on_due)(Timer*) noexcept nogil, void* owner) noexcept nogil:
    timer.due_us = 0
    timer.index = -1
    timer.on_due = on_due
    timer.owner = owner


cdef bint timer_set(EventLoop* loop, Timer* timer, int64_t due_us) noexcept nogil:
    cdef size_t capacity
    cdef void* moved
    timer_cancel(loop, timer)
    if loop.num_timers == loop.timers_capacity:
        capacity = 2 * loop.timers_capacity if loop.timers_capacity else 64
        moved = realloc(loop.timers, capacity * sizeof(Timer*))
        if moved is NULL:
            return False
        loop.timers = <Timer**>moved
        loop.timers_capacity = capacity
    timer.due_us = due_us
    loop.num_timers += 1
    _sift_up(loop, timer, loop.num_timers - 1)
    return True


cdef void timer_cancel(EventLoop* loop, Timer* timer) noexcept nogil:
    cdef Timer* last
    cdef size_t index
    if timer.index < 0:
        return
    index = <size_t>timer.index
    timer.index = -1
    loop.num_timers -= 1
    last = loop.timers[loop.num_timers]
    if last is timer:
        return
    # The last one fills the gap, and goes whichever way it has to.
    if index > 0 and last.due_us < loop.timers[(index - 1) // 2].due_us:
        _sift_up(loop, last, index)
    else:
        _sift_down(loop, last, index)


cdef void _run_timers(EventLoop* loop) noexcept nogil:
    cdef Timer* timer
    while loop.num_timers and loop.timers[0].due_us <= loop.now_us:
        timer = loop.timers[0]
        timer_cancel(loop, timer)
        timer.on_due(timer)


# --- the loop ---------------------------------------------------------------------------------------------------------

cdef int _wait_ms(EventLoop* loop) noexcept nogil:
    cdef int64_t wait_ms
    if loop.num_timers == 0:
        return -1
    # Rounded up: waking too early would only mean waiting again.
    wait_ms = (loop.timers[0].due_us - monotonic_us() + 999) // 1000
    if wait_ms <= 0:
        return 0
    return <int>wait_ms if wait_ms < MAX_WAIT_MS else MAX_WAIT_MS


cdef inline void _begin_turn(EventLoop* loop, int wait_ms, bint run_timers) noexcept nogil:
    """All of a turn but its hooks."""
    cdef int count = epoll_wait(loop.epoll_fd, loop.events, MAX_EVENTS, wait_ms)
    cdef Watch* watch
    cdef int i
    # Interrupted by a signal: as if nothing were ready.
    loop.num_events = count if count > 0 else 0
    loop.now_us = monotonic_us()
    for i in range(loop.num_events):
        watch = <Watch*>loop.events[i].data.ptr
        if watch is not NULL:
            watch.on_ready(watch, loop.events[i].events)
    loop.num_events = 0
    if run_timers:
        _run_timers(loop)


cdef void* _thread_main(void* argument) noexcept nogil:
    cdef LoopThread* thread = <LoopThread*>argument
    cdef EventLoop* loop = thread.loop
    cdef Hook* hook
    # The first turn waits for nothing: the thread that this one replaces may have left work behind.
    cdef int wait_ms = 0
    while not atomic_load(&loop.stopping):
        _begin_turn(loop, wait_ms, True)
        hook = loop.first_hook
        while hook is not NULL:
            hook.run(hook)
            if <LoopThread*>load_pointer(&loop.newest) is not thread:
                atomic_store(&thread.has_ended, 1)
                return NULL
            hook = hook.next
        wait_ms = _wait_ms(loop)
    return NULL


cdef void loop_turn(EventLoop* loop, bint run_timers) noexcept nogil:
    cdef Hook* hook = loop.first_hook
    _begin_turn(loop, 0, run_timers)
    while hook is not NULL:
        hook.run(hook)
        hook = hook.next


cdef void loop_add_hook(EventLoop* loop, Hook* hook) noexcept nogil:
    hook.next = NULL
    if loop.last_hook is NULL:
        loop.first_hook = hook
    else:
        loop.last_hook.next = hook
    loop.last_hook = hook


cdef void loop_remove_hook(EventLoop* loop, Hook* hook) noexcept nogil:
    cdef Hook* previous = NULL
    cdef Hook* each = loop.first_hook
    while each is not NULL and each is not hook:
        previous = each
        each = each.next
    if each is NULL:
        return
    if previous is NULL:
        loop.first_hook = hook.next
    else:
        previous.next = hook.next
    if loop.last_hook is hook:
        loop.last_hook = previous


cdef bint loop_init(EventLoop* loop) noexcept nogil:
    memset(loop, 0, sizeof(EventLoop))
    loop.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    if loop.epoll_fd < 0:
        return False
    loop.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    if loop.wake_fd < 0:
        close(loop.epoll_fd)
        return False
    pthread_mutex_init(&loop.mutex, NULL)
    loop.wake.fd = loop.wake_fd
    loop.wake.on_ready = _on_wake
    loop.wake.owner = loop
    loop.now_us = monotonic_us()
    if not loop_watch(loop, &loop.wake, EPOLLIN):
        loop_free(loop)
        return False
    return True


cdef void loop_free(EventLoop* loop) noexcept nogil:
    _run_tasks(loop)
    close(loop.epoll_fd)
    close(loop.wake_fd)
    free(loop.timers)
    loop.timers = NULL
    pthread_mutex_destroy(&loop.mutex)


cdef bint _start_thread(EventLoop* loop) noexcept nogil:
    cdef LoopThread* thread = <LoopThread*>calloc(1, sizeof(LoopThread))
    if thread is NULL:
        return False
    thread.loop = loop
    thread.previous = loop.newest
    swap_pointer(&loop.newest, thread)
    if pthread_create(&thread.thread, NULL, _thread_main, thread) != 0:
        swap_pointer(&loop.newest, thread.previous)
        free(thread)
        return False
    return True


cdef bint loop_start(EventLoop* loop) noexcept nogil:
    loop.is_running = _start_thread(loop)
    return loop.is_running


cdef bint loop_replace_thread(EventLoop* loop) noexcept nogil:
    cdef LoopThread** link
    cdef LoopThread* ended
    if not _start_thread(loop):
        return False
    link = &loop.newest.previous
    while link[0] is not NULL:
        ended = link[0]
        if atomic_load(&ended.has_ended):
            pthread_join(ended.thread, NULL)
            link[0] = ended.previous
            free(ended)
        else:
            link = &ended.previous
    return True


cdef void loop_stop(EventLoop* loop) noexcept nogil:
    # A flag and a ring rather than a task, which could not be posted without memory.
    atomic_store(&loop.stopping, 1)
    eventfd_write(loop.wake_fd, 1)


cdef void loop_join(EventLoop* loop) noexcept nogil:
    cdef LoopThread* thread
    while loop.newest is not NULL:
        thread = loop.newest
        pthread_join(thread.thread, NULL)
        swap_pointer(&loop.newest, thread.previous)
        free(thread)
    loop.is_running = False
