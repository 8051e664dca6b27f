"""From images and draws to batches, by tf.data or on the device."""
