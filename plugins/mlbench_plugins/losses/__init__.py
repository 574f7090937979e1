"""Losses of (logits, targets) in which unknown labels weigh nothing."""
