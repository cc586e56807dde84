"""Run `python -m device` as `fedpi-device`."""

from device.cli import main

main(prog_name="fedpi-device")
