"""The command that runs one of tensorgate's own programs in a child process: a worker, the demo's server and training.

``python -m`` would look for modules in the current folder first, and so run a user's ``queue.py`` in place of the real
one; ``python -P``, which does not, came with Python 3.11. PYTHONPATH and virtual environments count as ever.

Inside the gateway's one-file binary there is no interpreter to run them with; there the machine's python3 is taken.

Sources: https://docs.python.org/3/using/cmdline.html (what each way of starting puts at the head of sys.path);
PyInstaller's manual (sys.frozen).
"""

import sys


def python_command(module: str) -> tuple[str, ...]:
    """Program and first arguments; ``module``'s ``main()`` gets what follows as sys.argv[1:], and returns the status.

    With ``-c`` the current folder stands in sys.path as the empty string, which nothing else does. It goes before
    anything is imported: ``sys`` is part of the interpreter.
    """
    program = f"import sys; sys.path[:] = filter(None, sys.path); from {module} import main; sys.exit(main())"
    return ("python3" if getattr(sys, "frozen", False) else sys.executable, "-c", program)
