"""The command line: ``tensorgate serve``, ``tensorgate demo``, and the tutorial's model that the demo trains and asks.

``main`` holds the commands; what they need is imported when they run, so that serving loads none of the demo.
"""
