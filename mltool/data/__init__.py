"""From what is there to batches: `sources` and `tables` yield numpy, splits share it out, the pipeline makes tf.data.

`dataset` opens what a spec names, `scan` tells the truth about it, `given` reads samples without labels.
"""
