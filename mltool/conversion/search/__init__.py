"""`quantize: auto`: what can be made of a model, what each of it costs, and the best that keeps the limits."""
