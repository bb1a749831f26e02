"""The operator's web page: what the server serves, how it is doing, and a form that asks a model something.

Beside both lines: state_history hears of versions on the event bus, traffic reads the counters once a second, overview
puts both and the workers into one JSON document, app answers a browser with it, with the files of page/, and with
REST's own API for the form; server is the listener. All of it runs on the edge loop, in little pieces.
"""
