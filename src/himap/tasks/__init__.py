"""Benchmarks, one small file a family."""
