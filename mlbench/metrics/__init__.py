"""Metrics: pure functions of scores and targets."""
