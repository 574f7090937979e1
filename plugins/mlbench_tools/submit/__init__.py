"""Sharing results.

The first line is the group's heading in ``mlbench --help``.
"""
