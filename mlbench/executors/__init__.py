"""Where the runs of a matrix are carried out."""
