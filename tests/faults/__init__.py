"""Faults that may befall a matrix: every run is done or failed with its reason, and none twice.

| fault | test |
| --- | --- |
| SIGKILL at random moments, killed launcher, killed server | test_kills.py |
| full disk; rights taken away; a corrupted record | test_disk.py |
| SIGTERM; a state that was cut short | test_kills.py |
| sys.exit(0), sys.exit(7), os._exit(7), os.abort, SIGKILL | test_matrix.py |
| endless sleep, a frozen process, endless memory, NaN, images that vanish | test_matrix.py |
| a stray thread, changed dtype, threads, random states and environment | test_matrix.py |
| a rank that fails, is killed, freezes, runs out of memory | test_matrix.py |
| SIGTERM again and again; a plan that is killed, or ended by a plugin | executors/test_local.py |
"""
