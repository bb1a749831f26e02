"""The table of flags as people see it."""

import io

from rich.console import Console

from tensorgate.gateway.cli.flag_table import print_flag_table
from tensorgate.gateway.flags import FLAGS


def test_every_flag_is_shown_with_its_default_and_those_that_do_not_act_say_so() -> None:
    output = io.StringIO()
    print_flag_table(Console(file=output, width=400))
    lines = [line for line in output.getvalue().splitlines() if line.startswith("--")]
    assert [line.split()[0] for line in lines] == [f"--{flag.name}" for flag in FLAGS]
    for line, flag in zip(lines, FLAGS, strict=True):
        assert flag.help in line
        assert ("Not acting yet" in line) == bool(flag.not_acting)
        assert ("Without meaning here" in line) == bool(flag.no_meaning)


def test_it_fits_a_narrow_terminal() -> None:
    output = io.StringIO()
    print_flag_table(Console(file=output, width=80))
    assert max(len(line) for line in output.getvalue().splitlines()) <= 80
