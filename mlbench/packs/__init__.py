"""A result as one small file: made by whoever ran it, recomputed by whoever takes it in."""
