"""Authors' checkpoints."""
