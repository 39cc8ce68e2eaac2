"""T5.1.1 with grouped-query attention in the decoder: jax and flax alone."""
