"""Strategy, optimizers, loop, callbacks, checkpoints."""
