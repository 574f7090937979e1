"""Using a trained model: its scores, and protocols; other tools may import them."""
