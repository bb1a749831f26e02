"""From a pinned version to a worker and back, and the workers themselves.

Its part of a request's line: route_table (pin) → dispatcher → completions ‖ _native/dispatcher (credit, queue,
deadline, frames) ‖ the worker → _native/dispatcher → completions → call.
Its part of a version's line: placement → worker_loader ‖ the worker → route_publisher → route_table.
Beside both: supervisor starts, watches and restarts the worker_process.
"""
