"""What batching in the worker consists of; shared by the batch_ modules.

A scheduler has threads, and batchers; a batcher is that of one loaded version, and has a queue for each combination of
inputs and outputs that its clients ask for; a queue has batches; a batch has slices of tasks, one task a request.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from tensorgate._native.example_input cimport ExampleInput
from tensorgate._native.execution_pool cimport Job
from tensorgate._native.fair_share cimport FairShare, FairShares
from tensorgate._native.posix cimport pthread_cond_t, pthread_mutex_t, pthread_t
from tensorgate._native.session cimport Endpoint, Name, RunHistory, SessionState
from tensorgate._native.tensor_decode cimport TensorValues
from tensorgate._native.tf_c_api cimport TF_Output, TF_Tensor

cdef enum:
    # Inputs of more dimensions than that are never merged, their requests run alone. Most kernels take fewer.
    MAX_BATCH_RANK = 8
    # Of run times and batch sizes: 1, 2, up to 4, up to 8, … rows; the last one is for all that are larger.
    NUM_SIZE_CLASSES = 15
    # Of what TensorFlow Serving's metrics of batching count: 2^i rows, i < 14, and what is above; and of waiting times.
    NUM_POWER_BUCKETS = 15
    NUM_WAIT_BUCKETS = 53


cdef struct BatchParameters:
    # Upstream's BatchingParameters, checked, and what we add to them.
    int64_t max_batch_size            # rows of a request
    int64_t max_execution_batch_size  # rows of a batch; the same unless requests may be split
    int64_t batch_timeout_us
    int64_t max_enqueued_batches
    int64_t* allowed_sizes            # ascending, owned; NULL: any
    int num_allowed
    bint pads_lengths
    bint splits
    bint refuses_mixed_shapes         # requests of unlike shapes fail each other, as upstream
    bint crops_outputs                # what padding made longer is cut back
    bint is_auto
    int64_t latency_target_us         # of auto


cdef struct BatchInput:
    # One input of a request. Points into the request's bytes, but for unpacked.
    TF_Output feed
    TensorValues values
    const ExampleInput* examples      # instead of values; NULL: none
    const Endpoint* endpoint          # its name, and what it is padded with
    int num_dims
    int64_t dims[MAX_BATCH_RANK]
    uint8_t* unpacked                 # elements of a request that was split, owned; NULL: those in values


cdef struct BatchOutputs:
    # What a batch put out, kept until its last user has encoded its rows.
    int64_t num_users
    TF_Tensor** tensors               # in the order of the queue's fetches
    int num_tensors
    int64_t num_rows                  # padding included
    int64_t* padded_dims              # MAX_BATCH_RANK for each input of the queue


cdef struct BatchSlice:
    # Rows of a task that are in one batch: all of them, unless the task was split.
    BatchSlice* next                  # in the batch
    BatchTask* task
    int64_t first_row
    int64_t num_rows
    int64_t row_in_batch
    BatchOutputs* outputs             # once it has run


cdef struct BatchTask:
    # One request. The submitter's until batch_enqueue has taken it, and again from the completion of its job.
    Job* job
    SessionState* state
    BatchQueue* queue
    const Name* signature_name        # that of the first one, of several
    int64_t num_rows
    int64_t enqueued_us
    size_t num_bytes                  # of all inputs
    BatchInput* inputs                # ordered by feed
    int num_inputs
    TF_Output* fetches                # in the client's order
    int* places                       # of each in the queue's fetches
    int num_fetches
    bint may_merge                    # for auto: every input and output has a free batch dimension
    BatchSlice whole
    BatchSlice* slices                # &whole, or an array of its own
    int num_slices
    int num_unfinished                # slices; guarded by the scheduler's mutex
    int code                          # of the first slice that failed
    # Writes the response from the outputs; a canonical status code, the text in the job's result.
    int (*respond)(BatchTask* task) noexcept nogil
    void (*release)(BatchTask* task) noexcept nogil


cdef struct Batch:
    Batch* next                       # in the queue, and of those that run
    BatchQueue* queue
    BatchSlice* first
    BatchSlice* last
    int num_slices
    int64_t num_rows
    size_t num_bytes
    int64_t began_us
    bint is_open                      # may take more
    int64_t* largest                  # MAX_BATCH_RANK dims for each input: the largest of all tasks
    # As it was taken, and once it has run.
    int slices_taken
    int64_t rows_taken
    int64_t padded_rows
    uint64_t queue_us                 # of all its tasks
    uint64_t run_us
    int code
    # Jobs that are done then, linked by next.
    Job* first_done
    Job* last_done


cdef struct BatchCounters:
    # Guarded by the scheduler's mutex.
    uint64_t requests                 # that ran, or failed as they ran
    uint64_t rows
    uint64_t batches
    uint64_t padding_rows
    uint64_t refused                  # since the queue was full
    uint64_t expired                  # or cancelled, while they waited
    uint64_t queue_us
    uint64_t run_us                   # of batches
    uint64_t batches_of_size[NUM_SIZE_CLASSES]  # padding included
    uint64_t batch_sizes[NUM_POWER_BUCKETS]     # likewise
    uint64_t request_sizes[NUM_POWER_BUCKETS]   # each as often as it has inputs, as is their sum
    uint64_t request_rows
    int64_t waits[NUM_WAIT_BUCKETS]             # atomic


cdef struct PaddingCounters:
    # Of batches that were padded to one of the allowed sizes.
    uint64_t buckets[NUM_POWER_BUCKETS]
    uint64_t rows


cdef struct BatchQueue:
    # All but the key is guarded by the scheduler's mutex.
    Batcher* batcher
    BatchQueue* next                  # of the batcher's
    BatchQueue* next_in_turn          # of the scheduler's, a ring
    const Name* signature             # the first one that asked
    TF_Output* feeds                  # the key: both ordered, owned
    int num_feeds
    TF_Output* fetches
    int num_fetches
    Batch* first                      # that wait
    Batch* last
    int num_batches
    int num_running
    int num_waiting                   # slices
    int64_t num_waiting_rows
    int64_t num_running_rows
    int64_t largest_wave              # of rows that were here at once lately: what auto waits for
    RunHistory history
    int64_t typical_us[NUM_SIZE_CLASSES]  # of runs; 0: none yet
    BatchCounters counters
    PaddingCounters* paddings         # one for each allowed size, owned


cdef struct Batcher:
    # Of one version, and as long as that is loaded.
    BatchScheduler* scheduler
    SessionState* state
    BatchParameters parameters
    BatchQueue* queues
    int64_t* not_at_once_until_us  # the servable's, of the loop
    FairShare share                   # guarded by the scheduler's mutex


cdef struct Buffer:
    # Stands before the memory that it describes.
    BufferPool* pool
    Buffer* next
    size_t capacity
    size_t num_strings
    int size_class


cdef enum:
    NUM_BUFFER_CLASSES = 20


cdef struct BufferPool:
    pthread_mutex_t mutex
    Buffer* free_buffers[NUM_BUFFER_CLASSES]
    int num_free[NUM_BUFFER_CLASSES]
    size_t free_bytes
    int64_t num_users                 # buffers that TensorFlow has, and the owner
    uint64_t num_made
    uint64_t num_reused


cdef struct BatchScheduler:
    pthread_mutex_t mutex
    pthread_cond_t work
    BufferPool* buffers
    BatchQueue* turn                  # whose turn is next; a ring
    FairShares shares
    pthread_t* threads
    int num_threads
    int num_idle
    int num_called                    # of them, those that were called and have not come yet
    int64_t watched_until_us          # when the first idle thread looks again by itself; INT64_MAX: never
    bint is_draining                  # no batch waits for company any more
    bint is_stopping
    Job* dropped                      # to make room, linked by next: to be completed by who has added a task
    # On a batch thread, with jobs that are done, linked by next; they are the submitter's again.
    void (*on_done)(void* owner, Job* first, Job* last) noexcept nogil
    void* owner


cdef inline int size_class_of(int64_t num_rows) noexcept nogil:
    cdef int size_class = 0
    cdef int64_t size = 1
    while size < num_rows and size_class < NUM_SIZE_CLASSES - 1:
        size *= 2
        size_class += 1
    return size_class
