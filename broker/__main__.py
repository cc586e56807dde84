"""Run `python -m broker` as `fedpi-broker`."""

from fedpi import broker

broker()
