"""Protocols: named ways to score predictions; other tools may import them."""
