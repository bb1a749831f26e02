"""The gateway process: answers clients, tracks versions of models, hands requests to workers; never loads TensorFlow.

Begin at main (flags in, exit status out) and server_core (everything put together; operator_view: what shows it). Two
lines run through it:

One request: rpc (its edges) or rest → model_spec → dispatch/route_table → dispatch/dispatcher → frames ‖ worker → back.
One model version: flags, config_files → sources → core (manager, policy, harness) → dispatch/worker_loader ‖ worker
→ core/servable_state_monitor, dispatch/route_table.
"""
