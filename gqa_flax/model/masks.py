"""Boolean attention masks: True where a query may read a key.

Shapes are [batch, 1, query, key]: the axis of size 1 is broadcast over heads.
The rules are those of T5X's examples/t5 (`make_attention_mask`,
`make_decoder_mask`).
"""

import jax
import jax.numpy as jnp


def attention_mask(query_valid: jax.Array, key_valid: jax.Array) -> jax.Array:
  """[b, t] and [b, s] booleans -> [b, 1, t, s], True where both are."""
  return jnp.logical_and(
    query_valid[:, None, :, None], key_valid[:, None, None, :]
  )


def segment_mask(query_segment: jax.Array, key_segment: jax.Array) -> jax.Array:
  """[b, t] and [b, s] segment ids -> [b, 1, t, s], True within a segment."""
  return query_segment[:, None, :, None] == key_segment[:, None, None, :]


def causal_mask(length: int) -> jax.Array:
  """[1, 1, t, t]: position t reads positions up to and including t."""
  return jnp.tril(jnp.ones((length, length), bool))[None, None]


def combine(*masks: jax.Array | None) -> jax.Array | None:
  """Logical and of those masks that are not None; None if all are."""
  masks = [mask for mask in masks if mask is not None]
  if not masks:
    return None
  result = masks[0]
  for mask in masks[1:]:
    result = jnp.logical_and(result, mask)
  return result


def decoder_mask(
  target_tokens: jax.Array, segment_ids: jax.Array | None = None
) -> jax.Array:
  """Causal and padding mask of decoder self-attention.

  Args:
    target_tokens: [b, t] integers, 0 is padding.
    segment_ids: [b, t] integers for packed examples, or None.

  Returns:
    [b, 1, t, t] boolean.
  """
  valid = target_tokens > 0
  segments = (
    None if segment_ids is None else segment_mask(segment_ids, segment_ids)
  )
  return combine(
    causal_mask(target_tokens.shape[-1]),
    attention_mask(valid, valid),
    segments,
  )
