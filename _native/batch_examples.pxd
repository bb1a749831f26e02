"""Classify, Regress and MultiInference as tasks that can be merged."""

from tensorgate._native.batch_state cimport Batcher, BatchTask
from tensorgate._native.batch_tasks cimport Preparation
from tensorgate._native.execution_pool cimport Job

# As prepare_predict, for the three methods.
cdef Preparation prepare_inference(const Batcher* batcher, Job* job, BatchTask** task) noexcept nogil
