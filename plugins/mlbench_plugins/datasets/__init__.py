"""Datasets: from official files to an index of samples."""
