"""How to install what the demo and the examples need beside the base install; for error messages."""

INSTALL_EXAMPLES = (
    "install tensorgate with its extras cpu and examples: pip install 'tensorgate[cpu,examples]', or in a clone"
    " pip install '.[cpu,examples]'"
)
