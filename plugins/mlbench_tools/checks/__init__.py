"""What a plugin of each kind must do, a module a kind: plugins of the group `mlbench.checks`."""
