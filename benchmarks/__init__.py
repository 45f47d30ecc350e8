"""Benchmarks of the core: `forgetting` (the command `amnesiac bench forgetting`) and the script `table1.py`."""
