"""Measurements: time of encoding and decoding, and what they ran on."""
