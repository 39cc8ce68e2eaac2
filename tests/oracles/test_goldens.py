"""Our model against what transformers' T5 v1.1 computed on the same weights.

The golden files are made by make_goldens.py; test_transformers_live.py
compares against an installed transformers.
"""

import functools

import numpy as np
import pytest

from gqa_flax.model import decoding
from tests.oracles import goldens

TOLERANCE = 1e-4

# Each golden with the K/V heads that compute the same function.
CASES = [(name, 4) for name in goldens.NAMES] + [('grouped', 2), ('grouped', 1)]
cases = pytest.mark.parametrize('name, num_kv_heads', CASES)


@functools.cache
def load(name, num_kv_heads):
  golden = goldens.load(name)
  model, params = goldens.ours(golden.weights, golden.num_heads, num_kv_heads)
  return golden, model, params


@cases
def test_logits_are_those_of_transformers(name, num_kv_heads):
  golden, model, params = load(name, num_kv_heads)
  encoded, logits = goldens.forward(
    model, params, golden.inputs, golden.targets
  )
  source, target = golden.inputs > 0, golden.targets > 0
  np.testing.assert_allclose(
    encoded[source], golden.encoded[source], rtol=0, atol=TOLERANCE
  )
  np.testing.assert_allclose(
    logits[target], golden.logits[target], rtol=0, atol=TOLERANCE
  )


@cases
def test_cached_steps_give_the_logits_of_transformers(name, num_kv_heads):
  golden, model, params = load(name, num_kv_heads)
  logits = goldens.cached_logits(model, params, golden.inputs, golden.targets)
  target = golden.targets > 0
  np.testing.assert_allclose(
    logits[target], golden.logits[target], rtol=0, atol=TOLERANCE
  )


@cases
def test_greedy_tokens_are_those_of_transformers(name, num_kv_heads):
  golden, model, params = load(name, num_kv_heads)
  tokens, _ = decoding.generate(
    model, params, golden.inputs, max_decode_length=golden.greedy.shape[1]
  )
  np.testing.assert_array_equal(tokens, golden.greedy)


@cases
def test_beams_are_those_of_transformers(name, num_kv_heads):
  golden, model, params = load(name, num_kv_heads)
  _, num_beams, length = golden.beams.shape
  tokens, scores = decoding.generate(
    model,
    params,
    golden.inputs,
    max_decode_length=length,
    method=decoding.BeamSearch(num_beams=num_beams, length_penalty=0.0),
  )
  assert (np.diff(scores) <= 0).all()
  for ours, theirs, clear in zip(tokens, golden.beams, golden.clear_beams):
    np.testing.assert_array_equal(ours[:clear], theirs[:clear])


@pytest.mark.parametrize('name', goldens.NAMES)
def test_goldens_are_worth_comparing(name):
  """Rows that end and rows that do not; more than one beam to compare."""
  golden = goldens.load(name)
  ended = (golden.greedy == 1).any(axis=-1)
  assert ended.any() and not ended.all()
  assert golden.clear_beams.min() >= 1
  assert golden.clear_beams.sum() >= 2 * len(golden.clear_beams)
  assert (golden.inputs == 0).any()
  assert np.abs(golden.logits).max() > 3
