"""Run `python -m coordinator` as `fedpi-coordinator`."""

from fedpi import coordinator

coordinator()
