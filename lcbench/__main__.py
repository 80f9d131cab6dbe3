"""`python -m lcbench` is `lcbench`."""

from lcbench.cli import main

main(prog_name="lcbench")
