"""Grouped-query attention for T5: convert, uptrain, measure.

An implementation of "GQA: Training Generalized Multi-Query Transformer
Models from Multi-Head Checkpoints" (Ainslie et al., EMNLP 2023,
arXiv 2305.13245) in JAX and Flax.
"""

__version__ = '0.1.0'
