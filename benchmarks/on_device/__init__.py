"""What benchmarks/gpu.py measures, a file for each of its parts."""
