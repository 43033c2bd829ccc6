"""Which layers of a quantized file lose the answers, why, and what to try."""
