"""What is timed is what is said: every step, encoder and decoder apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_flax.measure import device
from gqa_flax.measure import timing
from gqa_flax.model import config
from gqa_flax.model import decoding
from gqa_flax.model import network
from gqa_flax.training import state

EOS = decoding.EOS_ID


def _model(num_kv_heads):
  model = network.Transformer(
    config.T5Config(
      vocab_size=16,
      emb_dim=8,
      num_heads=2,
      num_kv_heads=num_kv_heads,
      head_dim=4,
      mlp_dim=8,
      num_encoder_layers=1,
      num_decoder_layers=1,
      mlp_activations=('gelu', 'linear'),
    )
  )
  return model, state.init_params(model, 0)['params']


def _always_ends(params):
  """The same parameters, but every decoded token is the end-of-sequence."""
  kernel = params['decoder']['logits_dense']['kernel']
  norm = params['decoder']['decoder_norm']['scale']
  decoder = {
    **params['decoder'],
    # One constant direction, which only the end-of-sequence reads.
    'decoder_norm': {'scale': jnp.zeros_like(norm)},
    'logits_dense': {'kernel': jnp.zeros_like(kernel)},
  }
  return {**params, 'decoder': decoder}


def test_time_models_times_each_model_in_each_round():
  models = {str(g): _model(g) for g in (2, 1)}
  shape = timing.Shape(2, 5, 3)
  rounds = []
  found = timing.time_models(
    models, shape, rounds=4, progress=lambda: rounds.append(1)
  )
  assert len(rounds) == 4
  for name in models:
    assert len(found[name]['encode_seconds']) == 4
    assert len(found[name]['decode_seconds']) == 4
    assert min(found[name]['decode_seconds']) > 0


def test_decoding_makes_every_step_when_all_end_at_once(monkeypatch):
  model, params = _model(1)
  # Equal logits: argmax is token 0; calling that the end, generate stops at
  # once, and the timed function must not.
  params = _always_ends(params)
  monkeypatch.setattr(
    decoding, 'choose', lambda logits, *_: jnp.full(len(logits), EOS, jnp.int32)
  )
  tokens = jnp.full((2, 5), 3, jnp.int32)
  shape = timing.Shape(2, 5, 7)
  cross = decoding.encode_source(model, params, tokens)
  stopped, _ = decoding.decode_tokens(
    model, params, cross, tokens, jax.random.key(0), max_decode_length=7
  )
  np.testing.assert_array_equal((stopped == EOS).sum(1), [1, 1])
  decode = timing.compiled_decode(model, params, cross, tokens, shape)
  np.testing.assert_array_equal((decode(params, cross) == EOS).sum(1), [7, 7])


def test_encoding_in_parts_gives_the_same_cache():
  model, params = _model(2)
  shape = timing.Shape(4, 6, 2)
  tokens = timing._source_tokens(16, shape, seed=0)
  whole = decoding.encode_source(model, params, tokens)
  parts = timing.Shape(4, 6, 2, encode_batch_size=2)
  encode, _ = timing._compile(model, params, tokens, parts)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, encode()
  )


def test_source_tokens_are_neither_padding_nor_the_end():
  tokens = timing._source_tokens(16, timing.Shape(8, 64, 1), seed=1)
  assert tokens.min() >= 3
  assert tokens.max() < 16


def test_summarize_gives_quartiles_in_milliseconds():
  shape = timing.Shape(batch_size=2, input_length=4, output_length=10)
  measured = {
    'encode_seconds': [0.002, 0.004, 0.006],
    'decode_seconds': [0.02, 0.04, 0.06],
  }
  found = timing.summarize(measured, shape)
  assert found['encode_ms_per_sample'] == pytest.approx(
    {'median': 2.0, 'q1': 1.5, 'q3': 2.5, 'n': 3}
  )
  assert found['ms_per_sample']['median'] == pytest.approx(22)
  assert found['decode_ms_per_step']['median'] == pytest.approx(4)


@pytest.mark.parametrize(
  'arguments, message',
  [
    ((0, 4, 4), r'batch_size \(0\) must be at least 1'),
    ((4, 4, 0), r'output_length \(0\) must be at least 1'),
    ((4, 4, 4, 3), r'encode_batch_size \(3\) must divide batch_size \(4\)'),
  ],
)
def test_shape_refuses_what_cannot_be_timed(arguments, message):
  with pytest.raises(ValueError, match=message):
    timing.Shape(*arguments)


def test_device_is_described():
  found = device.describe()
  assert found['name']
  assert found['cores'] >= 1
  assert found['name'] in device.label({**found, 'devices': 1})
  assert device.peak_memory_bytes() > 2**20
