"""The only importer of TensorFlow and Keras: quiet at start-up, and the same bytes for the same seed."""

import logging
import os
import warnings

from common.learning.quiet import quiet

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
with quiet():  # TensorFlow's first lines come before it reads any log level
    import keras
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError
    from tensorflow.lite.tools import flatbuffer_utils

    tf.config.experimental.enable_op_determinism()
    tf.constant(0)  # creates the context, which writes more lines

warnings.filterwarnings("ignore", module=r"(keras|tensorflow|google\.protobuf)(\.|$)")  # of their own affairs
tf.get_logger().setLevel("ERROR")
logging.getLogger("absl").setLevel(logging.ERROR)  # Keras deprecates `.h5` through it, which people here have

__all__ = ["ConverterError", "flatbuffer_utils", "keras", "tf"]
