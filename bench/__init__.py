"""Measurements. ``python -m bench.run`` compares with others; see ``README.md``."""
