"""What `benchmarks/performance.py` is made of: timing, counting, recipes, benchmarks, the page."""
