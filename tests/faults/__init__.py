"""Whole matrices that are disturbed while they run, and what is left of them."""
