"""The device of fedpi: trains on its own images, sends the update, serves the released model."""
