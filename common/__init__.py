"""The contract that coordinator, devices and broker tools of fedpi share."""
