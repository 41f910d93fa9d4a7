"""Keeps worker processes running.

What is in here imports neither the app nor what is outside, and little of the standard library: it
runs by itself, too, as the small program of :mod:`~.asleep`.
"""
