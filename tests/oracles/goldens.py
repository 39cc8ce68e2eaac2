"""Reads tests/testdata/t5_*.npz and builds our model with their weights."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from gqa_flax.model import config as config_lib
from gqa_flax.model import decoding
from gqa_flax.model import network
from tests.oracles import hf_mapping

TESTDATA = pathlib.Path(__file__).resolve().parents[1] / 'testdata'
NAMES = ('base', 'wide', 'long', 'grouped')


@dataclasses.dataclass(frozen=True)
class Golden:
  """What transformers computed, and its weights.

  Attributes:
    weights: transformers' names -> arrays.
    num_heads: query heads.
    num_kv_heads: decoder K/V heads that differ.
    inputs: [b, s] int32 sources, padded with 0.
    targets: [b, t] int32 of the teacher-forced pass, padded with 0.
    encoded: [b, s, e] float32.
    logits: [b, t, v] float32.
    greedy: [b, length] int32.
    beams: [b, n, length] int32, best first, without length penalty.
    clear_beams: [b] leading beams on which T5X's rule agrees.
  """

  weights: dict[str, np.ndarray]
  num_heads: int
  num_kv_heads: int
  inputs: np.ndarray
  targets: np.ndarray
  encoded: np.ndarray
  logits: np.ndarray
  greedy: np.ndarray
  beams: np.ndarray
  clear_beams: np.ndarray


def load(name: str) -> Golden:
  with np.load(TESTDATA / f't5_{name}.npz') as file:
    arrays = dict(file)
  weights = {
    key.removeprefix('weights/'): arrays[key].astype(np.float32)
    for key in arrays
    if key.startswith('weights/')
  }
  fields = {f.name for f in dataclasses.fields(Golden)} - {'weights'}
  values = {f: arrays[f] if arrays[f].ndim else int(arrays[f]) for f in fields}
  return Golden(weights=weights, **values)


def ours(
  weights: dict[str, np.ndarray],
  num_heads: int,
  num_kv_heads: int | None = None,
) -> tuple[network.Transformer, dict]:
  """Our model and parameters from transformers' weights."""
  params = hf_mapping.hf_to_t5x(
    weights, num_heads=num_heads, num_kv_heads=num_kv_heads
  )
  vocab_size, emb_dim = params['token_embedder']['embedding'].shape
  layer = params['encoder']['layers_0']
  config = config_lib.T5Config(
    vocab_size=vocab_size,
    emb_dim=emb_dim,
    num_heads=num_heads,
    num_kv_heads=num_kv_heads,
    head_dim=layer['attention']['query']['kernel'].shape[1] // num_heads,
    mlp_dim=layer['mlp']['wi_0']['kernel'].shape[1],
    num_encoder_layers=_num_layers(params['encoder']),
    num_decoder_layers=_num_layers(params['decoder']),
    mlp_activations=('gelu', 'linear'),
  )
  return network.Transformer(config), jax.tree.map(jnp.asarray, params)


def _num_layers(stack: dict) -> int:
  return sum(name.startswith('layers_') for name in stack)


def forward(model, params, inputs, targets):
  """Encoder output [b, s, e] and teacher-forced logits [b, t, v]."""

  @jax.jit
  def run(params, inputs, targets):
    apply = functools.partial(
      model.apply, {'params': params}, enable_dropout=False
    )
    encoded = apply(inputs, method='encode')
    shifted = jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    logits = apply(encoded, inputs, shifted, targets, method='decode')
    return encoded, logits

  return jax.tree.map(np.asarray, run(params, inputs, targets))


def cached_logits(model, params, inputs, targets):
  """Logits [b, t, v] of the same targets, one cached step a position."""

  @jax.jit
  def run(params, inputs, targets):
    cross = decoding.encode_source(model, params, inputs)
    length = targets.shape[1]
    step = decoding._step_fn(model, params, cross, inputs, length)
    shifted = jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1]

    def body(cache, tokens):
      logits, cache = step(tokens, cache)
      return cache, logits

    cache = decoding.empty_cache(model, inputs, 1, length)
    return jnp.swapaxes(jax.lax.scan(body, cache, shifted.T)[1], 0, 1)

  return np.asarray(run(params, inputs, targets))
