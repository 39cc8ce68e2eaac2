"""Names and layouts of transformers' T5, mapped on T5X's parameter tree.

transformers keeps a kernel as [out, in] where T5X has [in, out], and the
relative bias as [buckets, heads] where T5X has [heads, buckets]. Needs numpy
alone: the golden files hold transformers' names.
"""

import numpy as np

_ATTENTION = {'q': 'query', 'k': 'key', 'v': 'value', 'o': 'out'}
_ENCODER_NORMS = ('pre_attention_layer_norm', 'pre_mlp_layer_norm')
_DECODER_NORMS = (
  'pre_self_attention_layer_norm',
  'pre_cross_attention_layer_norm',
  'pre_mlp_layer_norm',
)


def hf_to_t5x(
  state: dict[str, np.ndarray],
  *,
  num_heads: int,
  num_kv_heads: int | None = None,
) -> dict:
  """T5X's nested parameter tree of a transformers T5 v1.1 state dict.

  Args:
    state: transformers' names -> arrays, untied `lm_head.weight` included.
    num_heads: query heads.
    num_kv_heads: keeps the first decoder K/V head of each group; the result
      computes the same only if the heads of a group are equal. None keeps all.

  Returns:
    Nested dict of float32 arrays with T5X's names.

  Raises:
    ValueError: a name has no place in the tree.
  """
  group = num_heads // (num_kv_heads or num_heads)
  tree = {}
  for name, value in state.items():
    if name.endswith('embed_tokens.weight'):
      continue  # the same array as shared.weight
    path = _t5x_path(name)
    array = np.asarray(value, np.float32)
    if path[-1] in ('kernel', 'rel_embedding'):
      array = array.T
    if path[0] == 'decoder' and path[-2] in ('key', 'value'):
      heads = array.reshape(array.shape[0], num_heads, -1)[:, ::group]
      array = heads.reshape(array.shape[0], -1)
    _insert(tree, path, np.ascontiguousarray(array))
  return tree


def _t5x_path(name: str) -> tuple[str, ...]:
  if name == 'shared.weight':
    return ('token_embedder', 'embedding')
  if name == 'lm_head.weight':
    return ('decoder', 'logits_dense', 'kernel')
  parts = name.split('.')
  stack = parts[0]
  if parts[1] == 'final_layer_norm':
    return (stack, f'{stack}_norm', 'scale')
  if 'relative_attention_bias' in parts:
    return (stack, 'relpos_bias', 'rel_embedding')
  if parts[1] != 'block' or parts[3] != 'layer':
    raise ValueError(f'No place in the T5X tree for {name!r}.')
  return (stack, f'layers_{parts[2]}') + _layer_path(stack, parts[4:])


def _layer_path(stack: str, parts: list[str]) -> tuple[str, ...]:
  """('1', 'EncDecAttention', 'q', 'weight') -> its path within a layer."""
  norms = _ENCODER_NORMS if stack == 'encoder' else _DECODER_NORMS
  if parts[1] == 'layer_norm':
    return (norms[int(parts[0])], 'scale')
  if parts[1] == 'DenseReluDense':
    return ('mlp', parts[2], 'kernel')
  if parts[1] == 'EncDecAttention':
    return ('encoder_decoder_attention', _ATTENTION[parts[2]], 'kernel')
  block = 'attention' if stack == 'encoder' else 'self_attention'
  return (block, _ATTENTION[parts[2]], 'kernel')


def _insert(tree: dict, path: tuple[str, ...], value: np.ndarray) -> None:
  for key in path[:-1]:
    tree = tree.setdefault(key, {})
  tree[path[-1]] = value
