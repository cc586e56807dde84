"""Run `python -m broker` as `fedpi-broker`."""

from broker.cli import main

main(prog_name="fedpi-broker")
