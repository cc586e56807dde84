"""What becomes of the devices' updates: one small file an idea. Pure: arrays in, arrays out."""
