"""One paper, one file: the head, its recipe and its citation."""
