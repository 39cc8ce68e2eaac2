"""What a checkpoint is, and what a conversion changes: shapes alone.

Paths are those of parameters ('decoder/layers_0/...'), without 'target/'.
"""

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from gqa_flax.conversion import grouping
from gqa_flax.errors import UserError
from gqa_flax.model import config as config_lib

T5Config = config_lib.T5Config
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
  """A conversion before it is done.

  Attributes:
    before: the source's model.
    after: the same with num_kv_heads = G.
    changes: path -> (shape before, shape after) of the tensors that change.
  """

  before: T5Config
  after: T5Config
  changes: dict[str, tuple[Shape, Shape]]


def plan(shapes: Mapping[str, Any], num_kv_heads: int) -> Plan:
  """Plans the conversion of parameters of these shapes to num_kv_heads.

  Args:
    shapes: path -> anything with a `shape`, or a tuple.
    num_kv_heads: G.

  Raises:
    UserError: not a T5.1.1 tree (all that is amiss is listed), or G does not
      divide.
  """
  before = infer_config(shapes)
  grouping.check_groups(before.num_heads, before.num_kv_heads, num_kv_heads)
  after = dataclasses.replace(before, num_kv_heads=num_kv_heads)
  old, new = parameter_shapes(before), parameter_shapes(after)
  changes = {p: (old[p], new[p]) for p in sorted(old) if old[p] != new[p]}
  return Plan(before, after, changes)


def infer_config(shapes: Mapping[str, Any]) -> T5Config:
  """The model that parameters of these shapes belong to.

  num_heads is read off the encoder's bias table, num_kv_heads off the decoder's
  first key kernel. Activations leave no trace but their number: two are taken
  for T5.1.1's ('gelu', 'linear'), one for T5 1.0's ('relu',).

  Raises:
    UserError: lists every missing, unexpected and misshapen tensor.
  """
  shapes = {path: _shape(x) for path, x in shapes.items()}
  needed = {
    'token_embedder/embedding': 2,
    'encoder/relpos_bias/rel_embedding': 2,
    'encoder/layers_0/attention/query/kernel': 2,
    'decoder/layers_0/self_attention/key/kernel': 2,
  }
  lacking = [p for p, rank in needed.items() if len(shapes.get(p, ())) != rank]
  if lacking:
    raise UserError(
      'Not the parameters of an unscanned T5: missing, or not of rank 2: '
      + ', '.join(lacking)
    )
  vocab_size, emb_dim = shapes['token_embedder/embedding']
  num_heads = shapes['encoder/relpos_bias/rel_embedding'][0]
  width = shapes['encoder/layers_0/attention/query/kernel'][1]
  kv_width = shapes['decoder/layers_0/self_attention/key/kernel'][1]
  head_dim = width // max(num_heads, 1)
  if not head_dim or width % num_heads or kv_width % head_dim:
    raise UserError(
      f'The width of the query kernels ({width}) must be a multiple of the'
      f' rows of the bias table ({num_heads}), and that of the key kernels'
      f' ({kv_width}) of head_dim ({head_dim}).'
    )
  config = _config(
    vocab_size=vocab_size,
    emb_dim=emb_dim,
    num_heads=num_heads,
    num_kv_heads=kv_width // head_dim,
    num_encoder_layers=_num_layers(shapes, 'encoder'),
    num_decoder_layers=_num_layers(shapes, 'decoder'),
    head_dim=head_dim,
    mlp_dim=shapes.get('encoder/layers_0/mlp/wo/kernel', (1,))[0],
    mlp_activations=_activations(shapes),
    logits_via_embedding='decoder/logits_dense/kernel' not in shapes,
  )
  check_shapes(shapes, parameter_shapes(config))
  return config


def parameter_shapes(config: T5Config) -> dict[str, Shape]:
  """Path -> shape of every parameter, without tracing the network."""
  embed = config.emb_dim
  width = config.num_heads * config.head_dim
  bias = (config.num_heads, config_lib.RELATIVE_BUCKETS)
  shapes = {
    'token_embedder/embedding': (config.vocab_size, embed),
    'encoder/relpos_bias/rel_embedding': bias,
    'encoder/encoder_norm/scale': (embed,),
    'decoder/relpos_bias/rel_embedding': bias,
    'decoder/decoder_norm/scale': (embed,),
  }
  if not config.logits_via_embedding:
    shapes['decoder/logits_dense/kernel'] = (embed, config.vocab_size)
  for i in range(config.num_encoder_layers):
    layer = f'encoder/layers_{i}'
    shapes[f'{layer}/pre_attention_layer_norm/scale'] = (embed,)
    shapes |= _attention(f'{layer}/attention', embed, width, width)
    shapes |= _mlp(layer, config)
  kv_width = config.num_kv_heads * config.head_dim
  for i in range(config.num_decoder_layers):
    layer = f'decoder/layers_{i}'
    shapes[f'{layer}/pre_self_attention_layer_norm/scale'] = (embed,)
    shapes[f'{layer}/pre_cross_attention_layer_norm/scale'] = (embed,)
    for name in ('self_attention', 'encoder_decoder_attention'):
      shapes |= _attention(f'{layer}/{name}', embed, width, kv_width)
    shapes |= _mlp(layer, config)
  return shapes


def check_shapes(
  actual: Mapping[str, Any],
  expected: Mapping[str, Any],
  *,
  where: str = 'The checkpoint',
):
  """Compares shapes by path; anything with a `shape`, or a tuple, will do.

  Raises:
    UserError: lists every missing, unexpected and misshapen tensor.
  """
  problems = []
  for path in sorted(set(actual) | set(expected)):
    if path not in actual:
      problems.append(f'missing {path} {list(_shape(expected[path]))}')
    elif path not in expected:
      problems.append(f'unexpected {path} {list(_shape(actual[path]))}')
    elif _shape(actual[path]) != _shape(expected[path]):
      problems.append(
        f'{path} is {list(_shape(actual[path]))}, must be'
        f' {list(_shape(expected[path]))}'
      )
  if problems:
    count = f'{len(problems)} tensor' + ('s' if len(problems) > 1 else '')
    raise UserError(
      f'{where} does not fit the model ({count}): ' + '; '.join(problems)
    )


def _config(**fields) -> T5Config:
  try:
    return T5Config(**fields)
  except ValueError as error:
    raise UserError(f'The checkpoint is of no valid model: {error}') from error


def _num_layers(shapes, stack: str) -> int:
  layer = re.compile(stack + r'/layers_(\d+)/')
  found = (layer.match(path) for path in shapes)
  count = max(int(match.group(1)) for match in found if match) + 1
  if count > len(shapes):
    raise UserError(
      f'The {stack} has a layer {count - 1}, but the checkpoint only'
      f' {len(shapes)} tensors.'
    )
  return count


def _activations(shapes) -> tuple[str, ...]:
  single = 'encoder/layers_0/mlp/wi/kernel' in shapes
  return ('relu',) if single else ('gelu', 'linear')


def _attention(name: str, embed: int, width: int, kv_width: int):
  return {
    f'{name}/query/kernel': (embed, width),
    f'{name}/key/kernel': (embed, kv_width),
    f'{name}/value/kernel': (embed, kv_width),
    f'{name}/out/kernel': (width, embed),
  }


def _mlp(layer: str, config: T5Config):
  count = len(config.mlp_activations)
  names = ['wi'] if count == 1 else [f'wi_{i}' for i in range(count)]
  shapes = {
    f'{layer}/mlp/{name}/kernel': (config.emb_dim, config.mlp_dim)
    for name in names
  }
  shapes[f'{layer}/mlp/wo/kernel'] = (config.mlp_dim, config.emb_dim)
  shapes[f'{layer}/pre_mlp_layer_norm/scale'] = (config.emb_dim,)
  return shapes


def _shape(x) -> Shape:
  return tuple(getattr(x, 'shape', x))
