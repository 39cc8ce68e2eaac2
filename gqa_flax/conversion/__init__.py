"""Multi-head to grouped-query: pure functions on arrays (paper, section 2.1).

They take numpy arrays (nothing is put on a device), jax arrays and tracers.
"""
