"""Runs on other machines: executors that hand them to Ray and to Slurm."""
