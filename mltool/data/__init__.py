"""Sources that yield numpy; the pipeline makes tf.data of them; splits; augmentation."""
