"""Constructs, one capability a file. From runtime they take `scanfleet.contract` and nothing else."""
