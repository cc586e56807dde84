"""The contract that coordinator, devices and broker tools share."""
