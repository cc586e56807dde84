"""Run `python -m coordinator` as `fedpi-coordinator`."""

from coordinator.cli import main

main(prog_name="fedpi-coordinator")
