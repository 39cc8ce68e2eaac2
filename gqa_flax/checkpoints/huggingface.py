"""T5 as transformers saves it: config.json and safetensors, one file or many.

    FOLDER/config.json
    FOLDER/model.safetensors                or
    FOLDER/model.safetensors.index.json     name -> file, beside it

transformers keeps a kernel as [out, in] where T5X has [in, out], and the
relative bias as [buckets, heads] where T5X has [heads, buckets]. There is no
optimizer state and no step. Pickles (pytorch_model.bin) are not read: opening
one runs whatever code it holds.
"""

from collections.abc import Iterable
import json
import re

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from gqa_flax.checkpoints import folders
from gqa_flax.errors import UserError
from gqa_flax.model import config as config_lib

CONFIG, SINGLE, INDEX, *_PICKLES = folders.HUGGINGFACE_FILES
_STEP = 'state/step'
_LOGITS = 'decoder/logits_dense/kernel'

_ATTENTION = {'q': 'query', 'k': 'key', 'v': 'value', 'o': 'out'}
_BLOCKS = {
  ('encoder', 'SelfAttention'): 'attention',
  ('decoder', 'SelfAttention'): 'self_attention',
  ('decoder', 'EncDecAttention'): 'encoder_decoder_attention',
}
_NORMS = {
  'encoder': ('pre_attention_layer_norm', 'pre_mlp_layer_norm'),
  'decoder': (
    'pre_self_attention_layer_norm',
    'pre_cross_attention_layer_norm',
    'pre_mlp_layer_norm',
  ),
}
_DTYPES = {'F32': 'float32', 'F16': 'float16', 'BF16': 'bfloat16'}
# What T5X's network holds to, and this project with it.
_REQUIRED = {
  'relative_attention_num_buckets': config_lib.RELATIVE_BUCKETS,
  'relative_attention_max_distance': config_lib.RELATIVE_MAX_DISTANCE,
  'layer_norm_epsilon': 1e-6,
}
_FEED_FORWARD = ('gated-gelu', 'relu')


def t5x_path(name: str) -> str | None:
  """A tensor's path in T5X's tree; None for copies of the shared embedding.

  Raises UserError if it has no place there.
  """
  if name in ('encoder.embed_tokens.weight', 'decoder.embed_tokens.weight'):
    return None
  if name == 'shared.weight':
    return 'token_embedder/embedding'
  if name == 'lm_head.weight':
    return _LOGITS
  stack, _, rest = name.partition('.')
  if stack in _NORMS and rest == 'final_layer_norm.weight':
    return f'{stack}/{stack}_norm/scale'
  match = re.fullmatch(r'block\.(\d+)\.layer\.([0-2])\.(.+)\.weight', rest)
  found = match and _in_layer(stack, int(match.group(2)), match.group(3))
  if not found:
    raise UserError(f'No place in the tree of T5 for {name!r}.')
  if found == 'rel_embedding':
    # T5 has one table a stack, in its first layer; umT5 has one a layer.
    if match.group(1) != '0':
      raise UserError(f'A bias table in every layer is not T5: {name!r}.')
    return f'{stack}/relpos_bias/rel_embedding'
  return f'{stack}/layers_{match.group(1)}/{found}'


def name_of(path: str) -> tuple[str, bool]:
  """(transformers' name of a parameter of T5X's tree, whether transposed)."""
  parts = path.split('/')
  if path == 'token_embedder/embedding':
    return 'shared.weight', False
  if path == _LOGITS:
    return 'lm_head.weight', True
  stack = parts[0]
  if parts[1] == f'{stack}_norm':
    return f'{stack}.final_layer_norm.weight', False
  if parts[1] == 'relpos_bias':
    name = 'block.0.layer.0.SelfAttention.relative_attention_bias'
    return f'{stack}.{name}.weight', True
  block = f'{stack}.block.{parts[1].removeprefix("layers_")}.layer'
  norms = _NORMS[stack]
  if parts[2] in norms:
    return f'{block}.{norms.index(parts[2])}.layer_norm.weight', False
  if parts[2] == 'mlp':
    index, module, leaf = len(norms) - 1, 'DenseReluDense', parts[3]
  else:
    module = next(m for (s, m), b in _BLOCKS.items() if (s, b) == (stack, parts[2]))  # fmt: skip
    index = 1 if module == 'EncDecAttention' else 0
    leaf = next(q for q, name in _ATTENTION.items() if name == parts[3])
  return f'{block}.{index}.{module}.{leaf}.weight', True


def config_json(config: config_lib.T5Config, dtype: str) -> str:
  """config.json of a multi-head model of these shapes."""
  gated = len(config.mlp_activations) == 2
  fields = {
    'architectures': ['T5ForConditionalGeneration'],
    'model_type': 't5',
    'vocab_size': config.vocab_size,
    'd_model': config.emb_dim,
    'd_kv': config.head_dim,
    'd_ff': config.mlp_dim,
    'num_layers': config.num_encoder_layers,
    'num_decoder_layers': config.num_decoder_layers,
    'num_heads': config.num_heads,
    **_REQUIRED,
    'dropout_rate': 0.1,
    'feed_forward_proj': 'gated-gelu' if gated else 'relu',
    'tie_word_embeddings': config.logits_via_embedding,
    'is_encoder_decoder': True,
    'use_cache': True,
    'decoder_start_token_id': 0,
    'pad_token_id': 0,
    'eos_token_id': 1,
    'torch_dtype': dtype,
  }
  return json.dumps(fields, indent=2) + '\n'


def _in_layer(stack: str, index: int, rest: str) -> str | None:
  if rest == 'layer_norm':
    norms = _NORMS[stack]
    return f'{norms[index]}/scale' if index < len(norms) else None
  module, _, leaf = rest.partition('.')
  if module == 'DenseReluDense' and leaf in ('wi', 'wi_0', 'wi_1', 'wo'):
    return f'mlp/{leaf}/kernel'
  if module == 'SelfAttention' and leaf == 'relative_attention_bias':
    return 'rel_embedding'
  block = _BLOCKS.get((stack, module))
  if block and leaf in _ATTENTION:
    return f'{block}/{_ATTENTION[leaf]}/kernel'
  return None


class Reader:
  """Reads single tensors under T5X's names, as `t5x_orbax.Reader` does.

  Attributes:
    path: the folder.
    metadata: path ('target/encoder/...', 'state/step') ->
      jax.ShapeDtypeStruct, sorted.
  """

  def __init__(self, path: epath.PathLike, step: int = 0):
    """Opens a folder.

    Args:
      path: of config.json and the safetensors.
      step: what the model was trained for; the files do not say.

    Raises UserError: not T5, pickles only, corrupt.
    """
    self.path = folders.absolute(path)
    self._step = np.asarray(step, np.int32)
    tied = _check_config(self.path)
    self._files = {}
    found = {_STEP: jax.ShapeDtypeStruct((), self._step.dtype)}
    for file in _files(self.path):
      with _opened(file) as tensors:
        for name in tensors.keys():
          try:
            t5x_name = t5x_path(name)
          except UserError as error:
            raise UserError(f'{file}: {error}') from error
          if t5x_name is None or (tied and t5x_name == _LOGITS):
            continue
          leaf = tensors.get_slice(name)
          self._files[f'target/{t5x_name}'] = (file, name)
          found[f'target/{t5x_name}'] = _struct(
            leaf, t5x_name, f'{file}: {name}'
          )
    self.metadata = dict(sorted(found.items()))

  def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Reads tensors by name."""
    found = {}
    for name in names:
      if name == _STEP:
        found[name] = self._step
        continue
      file, stored_as = self._files[name]
      with _opened(file) as tensors:
        x = tensors.get_tensor(stored_as)
      found[name] = np.ascontiguousarray(x.T) if _is_transposed(name) else x
    return found


def _is_transposed(name: str) -> bool:
  return name.endswith(('/kernel', '/rel_embedding'))


def _struct(leaf, t5x_name: str, where: str) -> jax.ShapeDtypeStruct:
  if leaf.get_dtype() not in _DTYPES:
    raise UserError(f'{where}: is {leaf.get_dtype()}, not a floating number.')
  shape = tuple(leaf.get_shape())
  if _is_transposed(t5x_name):
    shape = shape[::-1]
  return jax.ShapeDtypeStruct(shape, jnp.dtype(_DTYPES[leaf.get_dtype()]))


def _opened(file: epath.Path):
  try:
    return safetensors.safe_open(str(file), 'numpy')
  except Exception as error:  # of the library, its own class
    raise UserError(f'{file}: not a safetensors file: {error}') from error


def _files(path: epath.Path) -> list[epath.Path]:
  """The safetensors, all of them there and in the folder."""
  if (path / SINGLE).is_file():
    return [path / SINGLE]
  if not (path / INDEX).is_file():
    if any((path / name).is_file() for name in _PICKLES):
      raise UserError(
        f'{path}: holds pickles, which are not read (opening one runs code):'
        ' load it with transformers and save it with'
        ' `save_pretrained(folder, safe_serialization=True)`.'
      )
    raise UserError(f'{path}: no {SINGLE} and no {INDEX} in it.')
  weight_map = folders.read_json(path, INDEX).get('weight_map')
  if not isinstance(weight_map, dict) or not weight_map:
    raise UserError(f'{path / INDEX}: lacks weight_map.')
  names = sorted({str(name) for name in weight_map.values()})
  for name in names:
    if not re.fullmatch(r'[\w\-][\w.\-]*\.safetensors', name):
      raise UserError(
        f'{path / INDEX}: {name!r} is not a safetensors file beside it.'
      )
    if not (path / name).is_file():
      raise UserError(f'{path / name}: missing, though the index names it.')
  return [path / name for name in names]


def _check_config(path: epath.Path) -> bool:
  """Whether logits are tied to the embedding.

  Raises UserError where config.json says other than T5X's network computes.
  """
  file = path / CONFIG
  config = folders.read_json(path, CONFIG)
  if config is None:
    return False  # The tensors that are there say it.
  kind = config.get('model_type')
  if kind not in ('t5', 'mt5'):
    raise UserError(f"{file}: model_type ({kind!r}) must be 't5' or 'mt5'.")
  wrong = [
    f'{name} ({config[name]}) must be {want}'
    for name, want in _REQUIRED.items()
    if name in config and config[name] != want
  ]
  feed_forward = config.get('feed_forward_proj', 'relu')
  if feed_forward not in _FEED_FORWARD:
    wrong.append(
      f'feed_forward_proj ({feed_forward!r}) must be one of'
      f' {", ".join(_FEED_FORWARD)}'
    )
  if wrong:
    raise UserError(f'{file}: {"; ".join(wrong)}.')
  return bool(config.get('tie_word_embeddings', True))
