"""Verbs beyond the run, a folder a subject: plugins of the group `mlbench.commands`."""
