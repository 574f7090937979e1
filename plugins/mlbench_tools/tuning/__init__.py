"""Tuning: choose settings on validation images, under an equal budget for every method."""
