"""The life of model versions, without input or output: what to load and unload, in which order, and what is said of it.

Its part of a version's line: source (the wish) → aspired_versions_manager (decides, with aspired_version_policy and one
loader_harness a version) → basic_manager (does it, through loader, where resource_tracker has room) → event_bus →
servable_state_monitor.

Imports nothing third-party and does no I/O; a test holds it to that.
"""
