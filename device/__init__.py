"""The device: trains on its own images, sends the update, serves the released model."""
