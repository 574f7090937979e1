"""Metrics: pure functions of logits and targets, a family a module."""
