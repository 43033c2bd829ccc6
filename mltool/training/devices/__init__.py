"""Where steps run: strategies, replicas, worker processes, threads and precision."""
