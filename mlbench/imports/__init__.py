"""Released checkpoints of other people's code: read without trusting them, and made ours."""
