"""Prints what pyproject.toml says must be installed: the gateway's packages, and those of the extras that are named.

  python3 requirements.py PYPROJECT [EXTRA …]

So the packages are image layers of their own, made anew when pyproject.toml changes and not with every line of code.
"""

import pathlib
import sys

import tomllib


def main() -> None:
    project = tomllib.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]
    requirements = list(project["dependencies"])
    for extra in sys.argv[2:]:
        requirements += project["optional-dependencies"][extra]
    print("\n".join(requirements))


if __name__ == "__main__":
    main()
