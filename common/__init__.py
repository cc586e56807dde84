"""The contract that coordinator, devices and broker tools of fedpi share."""

import os

# NumPy reads it when it loads, and this package loads before; children inherit it. With a thread a core, OpenBLAS takes
# 20 times the work for the norm of an update: its threads wait for each other by spinning. TensorFlow and LiteRT have
# threads of their own. Whoever sets the variable keeps the value.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
