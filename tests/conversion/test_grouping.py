import numpy as np
import pytest

from gqa_flax.conversion import grouping
from gqa_flax.errors import UserError
from tests.conversion import trees


def test_is_kv_kernel_names_exactly_the_decoders_keys_and_values():
  params = trees.flat_params(trees.config())
  assert [p for p in params if grouping.is_kv_kernel(p)] == [
    f'decoder/layers_{i}/{attention}/{name}/kernel'
    for i in (0, 1)
    for attention in ('self_attention', 'encoder_decoder_attention')
    for name in ('key', 'value')
  ]


@pytest.mark.parametrize('num_kv_heads', [1, 2, 4])
def test_split_heads_puts_head_n_in_group_n_over_m(num_kv_heads):
  heads = np.repeat(np.arange(4), 3)[None]  # [1, 4 * 3], each its head's number
  split = grouping.split_heads(heads, 4, num_kv_heads)
  for head in range(4):
    group, member = divmod(head, 4 // num_kv_heads)
    np.testing.assert_array_equal(split[0, group, member], [head] * 3)


def test_grouping_twice_is_grouping_once():
  kernel = np.arange(2 * 8 * 3, dtype=np.float32).reshape(2, 24)

  def pool(kernel, before, after):
    heads = grouping.split_heads(kernel, before, after)
    return grouping.join_heads(heads.mean(axis=2))

  np.testing.assert_array_equal(
    pool(pool(kernel, 8, 4), 4, 2), pool(kernel, 8, 2)
  )


@pytest.mark.parametrize(
  'heads, before, after, words',
  [
    (12, 12, 8, r'num_heads \(12\) must be a multiple of num_kv_heads \(8\)'),
    (4, 4, 8, r'num_heads \(4\) must be a multiple of num_kv_heads \(8\)'),
    (4, 4, 0, r'num_kv_heads \(0\)'),
    (8, 2, 4, r'num_kv_heads \(4\) must be at most that of the checkpoint'),
    (12, 4, 3, r"checkpoint's num_kv_heads \(4\) must be a multiple of .*3"),
  ],
)
def test_check_groups_names_the_numbers(heads, before, after, words):
  with pytest.raises(UserError, match=words):
    grouping.check_groups(heads, before, after)
