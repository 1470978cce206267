"""Figures, not tests: run by ``make bench``, written down in docs/benchmarks.md."""
