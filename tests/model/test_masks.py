"""Masks against matrices written out."""

import jax.numpy as jnp
import numpy as np

from gqa_flax.model import masks


def literal(mask, *rows):
  """Asserts that a [1, 1, t, s] mask is the given rows of 0 and 1."""
  assert mask.dtype == bool and mask.shape[:2] == (1, 1)
  expected = np.array([[int(c) for c in row] for row in rows])
  np.testing.assert_array_equal(np.asarray(mask)[0, 0].astype(int), expected)


def test_causal_mask():
  literal(masks.causal_mask(4), '1000', '1100', '1110', '1111')


def test_attention_mask_hides_padding():
  query = jnp.array([[5, 6, 0]]) > 0
  key = jnp.array([[5, 0, 7, 0]]) > 0
  literal(masks.attention_mask(query, key), '1010', '1010', '0000')


def test_segment_mask():
  query, key = jnp.array([[1, 1, 2]]), jnp.array([[1, 2, 2, 0]])
  literal(masks.segment_mask(query, key), '1000', '1000', '0110')


def test_decoder_mask_is_causal_and_hides_padding():
  mask = masks.decoder_mask(jnp.array([[7, 8, 9, 0]]))
  literal(mask, '1000', '1100', '1110', '0000')


def test_decoder_mask_keeps_packed_examples_apart():
  """The example of T5X's `make_decoder_mask`, without its prefixes."""
  mask = masks.decoder_mask(
    jnp.array([[6, 7, 8, 3, 4, 5, 0]]), jnp.array([[1, 1, 1, 2, 2, 2, 0]])
  )
  literal(
    mask,
    '1000000',
    '1100000',
    '1110000',
    '0001000',
    '0001100',
    '0001110',
    '0000000',
  )


def test_masks_keep_rows_of_a_batch_apart():
  tokens = jnp.array([[5, 6], [7, 0]])
  mask = masks.decoder_mask(tokens)
  assert mask.shape == (2, 1, 2, 2)
  literal(mask[:1], '10', '11')
  literal(mask[1:], '10', '00')


def test_combine_skips_none_and_broadcasts():
  assert masks.combine(None, None) is None
  row = jnp.array([True, True, False])[None, None, None]
  mask = masks.combine(None, masks.causal_mask(3), None, row)
  literal(mask, '100', '110', '110')
