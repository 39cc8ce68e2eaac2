"""A model whose shape is read off a checkpoint."""

import dataclasses
import os

import jax

from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.conversion import plan
from gqa_flax.errors import UserError
from gqa_flax.model import network


def from_checkpoint(
  path: str | os.PathLike,
  dropout_rate: float = 0.0,
  dtype: str = 'float32',
  num_kv_heads: int | None = None,
) -> network.Transformer:
  """The network that fits a checkpoint's parameters.

  Args:
    path: a checkpoint_N folder, or its parent (the latest is taken).
    dropout_rate: of training; the checkpoint does not say.
    dtype: of the computation; see `on_this_device`.
    num_kv_heads: what the checkpoint must have, where a variant's gin file
      says so; None takes what it has.

  Raises:
    UserError: unreadable, not a T5, or of other heads.
  """
  metadata = t5x_orbax.read_metadata(t5x_orbax.resolve(path))
  prefix = 'target/'
  shapes = {
    name.removeprefix(prefix): leaf.shape
    for name, leaf in metadata.items()
    if name.startswith(prefix)
  }
  config = plan.infer_config(shapes)
  if num_kv_heads not in (None, config.num_kv_heads):
    raise UserError(
      f'{path} has {config.num_kv_heads} key/value heads, but num_kv_heads'
      f' ({num_kv_heads}) is asked for: convert it first.'
    )
  return on_this_device(
    network.Transformer(
      dataclasses.replace(config, dropout_rate=dropout_rate, dtype=dtype)
    )
  )


def on_this_device(model: network.Transformer) -> network.Transformer:
  """The same network; on a CPU in float32, where bfloat16 saves nothing."""
  if jax.default_backend() != 'cpu':
    return model
  return network.Transformer(dataclasses.replace(model.config, dtype='float32'))


def restore_params(model: network.Transformer, path: str | os.PathLike) -> dict:
  """Parameters as float32; their shapes must be the model's."""
  path = t5x_orbax.resolve(path)
  stored = from_checkpoint(path).config
  expected = model.config
  for field in dataclasses.fields(expected):
    if field.name in ('dtype', 'dropout_rate', 'float32_attention_logits'):
      continue  # Not a matter of shapes.
    want, have = getattr(expected, field.name), getattr(stored, field.name)
    if want != have:
      raise UserError(
        f'{path} has {field.name} {have}, but the model asks for {want}.'
      )
  return jax.device_put(t5x_orbax.restore(path, only=('target',))['target'])
