"""The local driver: training and evaluation on one host, or a few."""
