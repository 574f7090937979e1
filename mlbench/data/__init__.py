"""From samples to batches: the same pixels for every method."""
