"""Trunks that turn images into feature maps."""
