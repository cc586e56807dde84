"""Run `python -m device` as `fedpi-device`."""

from fedpi import device

device()
