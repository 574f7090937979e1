"""Proof, by numbers that a file states, that a plugin computes what its authors' code does."""
