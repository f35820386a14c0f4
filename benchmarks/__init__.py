"""Measurements against named peers: `python -m benchmarks`. docs/benchmarks.md shows the last ones."""
