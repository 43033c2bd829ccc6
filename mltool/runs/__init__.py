"""The run directory: every file name in it, atomic writes, lock, manifest."""
