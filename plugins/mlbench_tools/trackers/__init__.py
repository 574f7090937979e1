"""Trackers of a matrix; see ``mlbench.cli.progress``."""
