"""Model, training, evaluation and measurement of one run."""
