"""Benchmarks: what the README and docs/performance.md claim, and how to measure it again. Each brings its baseline in the same run."""
