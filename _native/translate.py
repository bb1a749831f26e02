"""Translates Cython modules to C, many in one process: Cython takes longer to start than to translate most of them.

Run by CMakeLists.txt: ``translate.py DIRECTIVE=VALUE,… FOLDER NAME.pyx…`` writes FOLDER/NAME.c. A file whose text would
be the same stays untouched, so a change compiles only what it changes: a comment in a declaration file, nothing.

Source: https://cython.readthedocs.io/en/latest/src/userguide/source_files_and_compilation.html
"""

import pathlib
import sys

from Cython.Compiler import Options
from Cython.Compiler.Main import compile as translate


def main(directives: str, folder: pathlib.Path, sources: list[pathlib.Path]) -> int:
    """Sources are named by their places in the tree of links, since their packages' names follow from those."""
    Options.fast_fail = True
    for source in sources:
        made, wanted = folder / f"{source.stem}.c.new", folder / f"{source.stem}.c"
        result = translate(
            str(source),
            full_module_name=f"tensorgate._native.{source.stem}",
            output_file=str(made),
            include_path=[str(source.parents[2])],
            compiler_directives=Options.parse_directive_list(directives),  # type: ignore[no-untyped-call]
        )
        if result.num_errors:  # and Cython has said which
            return 1
        if wanted.exists() and wanted.read_bytes() == made.read_bytes():
            made.unlink()
        else:
            made.replace(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], pathlib.Path(sys.argv[2]), [pathlib.Path(name) for name in sys.argv[3:]]))
