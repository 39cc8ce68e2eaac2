"""Which heads share a key and a value head (paper, section 2.2).

Letters: h query heads, k key/value heads before, G after, m = k/G heads merged
into one, d head_dim, e embed. Query head n reads key/value head n // (h/G), so
a group is a run of neighbours; merging a checkpoint that is grouped already
keeps that: runs of runs.
"""

import re
from typing import Any

from gqa_flax.errors import UserError
from gqa_flax.model import config as config_lib

# The only tensors that conversion changes; the encoder's stay.
_KV_KERNEL = re.compile(
  r'decoder/layers_\d+/(self_attention|encoder_decoder_attention)'
  r'/(key|value)/kernel'
)


def is_kv_kernel(path: str) -> bool:
  """Whether a parameter ('decoder/layers_0/...') is a K or V projection."""
  return _KV_KERNEL.fullmatch(path) is not None


def check_groups(num_heads: int, num_kv_heads_before: int, num_kv_heads: int):
  """Raises UserError unless the K/V heads there are can form the groups."""
  try:
    config_lib.check_num_kv_heads(num_heads, num_kv_heads)
  except ValueError as error:
    raise UserError(str(error)) from error
  if num_kv_heads > num_kv_heads_before:
    raise UserError(
      f'num_kv_heads ({num_kv_heads}) must be at most that of the checkpoint'
      f' ({num_kv_heads_before}): heads once pooled cannot be parted.'
    )
  if num_kv_heads_before % num_kv_heads:
    raise UserError(
      f"The checkpoint's num_kv_heads ({num_kv_heads_before}) must be a"
      f' multiple of num_kv_heads ({num_kv_heads}).'
    )


def split_heads(
  kernel: Any, num_kv_heads_before: int, num_kv_heads: int
) -> Any:
  """[e, k*d] -> [e, G, m, d]."""
  embed, width = kernel.shape
  if width % num_kv_heads_before:
    raise ValueError(
      f'The width of the kernel ({width}) must be a multiple of'
      f' num_kv_heads ({num_kv_heads_before}).'
    )
  return kernel.reshape(
    embed,
    num_kv_heads,
    num_kv_heads_before // num_kv_heads,
    width // num_kv_heads_before,
  )


def join_heads(kernel: Any) -> Any:
  """[e, G, d] -> [e, G*d]."""
  return kernel.reshape(kernel.shape[0], -1)
