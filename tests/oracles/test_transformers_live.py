"""Live comparison with transformers' T5 v1.1 (make test-oracles).

Several random models and ragged batches; the golden files of test_goldens.py
are one such run kept. Everything is float32.
"""

import dataclasses

import numpy as np
import pytest

from gqa_flax.model import decoding
from gqa_flax.model import layers
from tests.oracles import goldens

pytestmark = pytest.mark.oracle
torch = pytest.importorskip('torch')
pytest.importorskip('transformers')
from tests.oracles import hf_models  # noqa: E402
from tests.oracles import make_goldens  # noqa: E402

SPECS = (
  hf_models.Spec('one_layer', encoder_layers=1, decoder_layers=1, seed=1000),
  hf_models.Spec(
    'eight_heads', vocab_size=160, num_heads=8, d_model=64, seed=1001
  ),
  hf_models.Spec(
    'wide_heads',
    d_kv=16,
    encoder_layers=3,
    input_lengths=(40, 1, 17, 33, 8),
    target_lengths=(30, 1, 9, 2, 21),
    seed=1002,
  ),
  hf_models.Spec(
    'far',
    input_lengths=(300, 131),
    target_lengths=(180, 20),
    max_new_tokens=24,
    seed=1003,
  ),
  hf_models.Spec('pairs', num_kv_heads=2, seed=1004),
  hf_models.Spec('multi_query', num_heads=8, num_kv_heads=1, seed=1005),
)
specs = pytest.mark.parametrize('spec', SPECS, ids=lambda spec: spec.name)


@dataclasses.dataclass(frozen=True)
class Case:
  """A transformers model, ours with its weights, and their inputs."""

  theirs: object
  model: object
  params: dict
  inputs: np.ndarray
  targets: np.ndarray


def case(spec) -> Case:
  theirs = hf_models.build(spec)
  weights = hf_models.state_of(theirs)
  model, params = goldens.ours(weights, spec.num_heads, spec.num_kv_heads)
  inputs = hf_models.candidates(spec, 1)[:, 0]
  return Case(theirs, model, params, inputs, hf_models.targets(spec))


def close(x, expected, valid):
  np.testing.assert_allclose(x[valid], expected[valid], rtol=0, atol=1e-4)


@specs
def test_logits_agree(spec):
  c = case(spec)
  encoded, logits = goldens.forward(c.model, c.params, c.inputs, c.targets)
  expected = hf_models.forward(c.theirs, c.inputs, c.targets)
  close(encoded, expected[0], c.inputs > 0)
  close(logits, expected[1], c.targets > 0)
  cached = goldens.cached_logits(c.model, c.params, c.inputs, c.targets)
  close(cached, expected[1], c.targets > 0)


@specs
def test_greedy_tokens_agree(spec):
  """Up to the first near-tie of a row, where rounding may decide."""
  c = case(spec)
  expected = hf_models.generate(c.theirs, c.inputs, spec.max_new_tokens)[:, 0]
  tokens, _ = decoding.generate(
    c.model, c.params, c.inputs, max_decode_length=spec.max_new_tokens
  )
  _, logits = hf_models.forward(c.theirs, c.inputs, expected)
  best = np.sort(logits, axis=-1)
  clear = best[..., -1] - best[..., -2] > 1e-3
  clear = np.cumprod(clear, axis=-1).astype(bool)
  np.testing.assert_array_equal(np.asarray(tokens)[clear], expected[clear])
  assert clear.mean() > 0.8


@specs
def test_beams_agree(spec):
  """Those on which T5X's rule and transformers' have no room to differ."""
  c = case(spec)
  expected = hf_models.generate(c.theirs, c.inputs, spec.max_new_tokens, 4)
  tokens, _ = decoding.generate(
    c.model,
    c.params,
    c.inputs,
    max_decode_length=spec.max_new_tokens,
    method=decoding.BeamSearch(num_beams=4, length_penalty=0.0),
  )
  compared = 0
  for source, ours, theirs in zip(c.inputs, tokens, expected):
    next_logits = hf_models.NextLogits(c.theirs, source)
    clear = make_goldens.clear_beams(next_logits, theirs)
    np.testing.assert_array_equal(ours[:clear], theirs[:clear])
    compared += clear
  assert compared


def test_golden_weights_give_the_golden_logits():
  """The committed files are what this transformers computes."""
  spec = dataclasses.replace(make_goldens.SPECS[0])
  golden = goldens.load(spec.name)
  model = hf_models.build(spec)
  for name, value in hf_models.state_of(model).items():
    np.testing.assert_array_equal(value, golden.weights[name], err_msg=name)
  encoded, logits = hf_models.forward(model, golden.inputs, golden.targets)
  close(encoded, golden.encoded, golden.inputs > 0)
  close(logits, golden.logits, golden.targets > 0)


@pytest.mark.parametrize('bidirectional', [True, False])
def test_buckets_agree_at_every_distance(bidirectional):
  from transformers.models.t5 import modeling_t5

  positions = np.arange(-3000, 3000)
  expected = modeling_t5.T5Attention._relative_position_bucket(
    torch.from_numpy(positions), bidirectional=bidirectional
  )
  found = layers.relative_position_bucket(
    positions, bidirectional=bidirectional, num_buckets=32, max_distance=128
  )
  np.testing.assert_array_equal(found, expected.numpy())
