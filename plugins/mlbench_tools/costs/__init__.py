"""Costs of inference."""
