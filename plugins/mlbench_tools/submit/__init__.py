"""Sharing results."""
