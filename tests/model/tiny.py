"""A network small enough to test, with weights that make it choose."""

import functools

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from gqa_flax.model import config as config_lib
from gqa_flax.model import network

# 1, a middle one, all.
KV_HEADS = (1, 2, 4)
NUM_HEADS = 4


def config(num_kv_heads: int = NUM_HEADS, **kwargs) -> config_lib.T5Config:
  fields = dict(
    vocab_size=24,
    emb_dim=16,
    num_heads=NUM_HEADS,
    num_kv_heads=num_kv_heads,
    head_dim=8,
    mlp_dim=20,
    num_encoder_layers=1,
    num_decoder_layers=2,
    mlp_activations=('gelu', 'linear'),
  )
  return config_lib.T5Config(**(fields | kwargs))


def shapes(cfg: config_lib.T5Config) -> dict[str, tuple[int, ...]]:
  """'encoder/layers_0/...' -> shape of every parameter."""
  tokens = jnp.ones((1, 2), jnp.int32)
  init = functools.partial(network.Transformer(cfg).init, enable_dropout=False)
  variables = jax.eval_shape(init, jax.random.key(0), tokens, tokens, tokens)
  flat = traverse_util.flatten_dict(variables['params'], sep='/')
  return {path: x.shape for path, x in flat.items()}


def model_and_params(cfg: config_lib.T5Config, seed: int = 0):
  """The network and random float32 parameters with peaked attention."""
  rng = np.random.default_rng(seed)
  flat = {}
  for path, shape in sorted(shapes(cfg).items()):
    value = rng.standard_normal(shape)
    if path.endswith('scale'):
      value = 1.0 + 0.2 * value
    elif path.endswith('kernel'):
      value *= 1.2 * shape[0] ** -0.5
    flat[path] = jnp.asarray(value, jnp.float32)
  params = traverse_util.unflatten_dict(flat, sep='/')
  return network.Transformer(cfg), params


def repeat_kv(params: dict, num_kv_heads: int) -> dict:
  """The multi-head parameters that compute what grouped ones do."""

  def repeat(path, x):
    if not path.startswith('decoder') or '/mlp/' in path:
      return x
    if not path.endswith(('key/kernel', 'value/kernel')):
      return x
    heads = x.reshape(x.shape[0], num_kv_heads, -1)
    heads = jnp.repeat(heads, NUM_HEADS // num_kv_heads, axis=1)
    return heads.reshape(x.shape[0], -1)

  flat = traverse_util.flatten_dict(params, sep='/')
  return traverse_util.unflatten_dict(
    {path: repeat(path, x) for path, x in flat.items()}, sep='/'
  )


def sources(batch: int = 3, length: int = 7, seed: int = 0) -> np.ndarray:
  """[b, s] int32 of ragged lengths, the first full, padded with 0."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(2, 24, (batch, length), np.int32)
  for i, row in enumerate(tokens):
    row[max(1, length - 2 * i) :] = 0
  return tokens


def logits(model, params, inputs, targets, **kwargs) -> jax.Array:
  """Teacher-forced [b, t, v], the targets shifted right by 0."""
  targets = jnp.asarray(targets)
  decoder_inputs = jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1]
  return model.apply(
    {'params': params},
    inputs,
    kwargs.pop('decoder_inputs', decoder_inputs),
    targets,
    enable_dropout=False,
    **kwargs,
  )
