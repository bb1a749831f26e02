"""From a pinned version to a worker and back, and the workers themselves.

Its part of a request's line: route_table (pin) → dispatcher → completions ‖ _native/dispatcher (credit, queue,
deadline, frames) ‖ the worker → _native/dispatcher → completions → call.
Its part of a version's line: placement (and worker_pool) → worker_loader ‖ the workers → route_publisher → route_table.
Beside both: worker_pool has a supervisor for each worker, which starts, watches and restarts its worker_process. Those
on the network have a remote_supervisor each, and worker_discovery finds them by name.
"""
