"""How many threads TensorFlow gets: these models are too small for one operation to be shared between several."""

from __future__ import annotations

import tensorflow as tf


def confine_tensorflow(operations: int) -> None:
    """Run `operations` of TensorFlow's side by side, each on one thread, so that no sum is split differently by luck.

    Who asks first decides for the process. Raises RuntimeError if TensorFlow has computed something before.
    """
    if not tf.config.threading.get_inter_op_parallelism_threads():
        tf.config.threading.set_inter_op_parallelism_threads(operations)
        tf.config.threading.set_intra_op_parallelism_threads(1)
