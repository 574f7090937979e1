"""Work on data sets outside of runs: fetch and unpack, verify, count, draw."""
