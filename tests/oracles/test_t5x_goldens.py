"""Loss and beam search against golden values of T5X (make_t5x_goldens.py)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gqa_flax.model import decoding
from gqa_flax.training import losses
from tests.oracles import beam_reference

TESTDATA = pathlib.Path(__file__).parents[1] / 'testdata'


def load(name):
  with np.load(TESTDATA / f't5x_{name}.npz') as file:
    return dict(file)


@pytest.mark.parametrize('z_loss', [0.0, 1e-4])
def test_cross_entropy_follows_t5x(z_loss):
  golden = load('losses')
  targets, weights = golden['targets'], golden['weights']

  def total(logits):
    sums = losses.cross_entropy(logits, targets, weights, z_loss=z_loss)
    return sums['loss'], sums

  (loss, sums), gradient = jax.value_and_grad(total, has_aux=True)(
    jnp.asarray(golden['logits'])
  )
  expected = {
    key.split('/')[1]: golden[key]
    for key in golden
    if key.startswith(f'z_loss_{z_loss:g}/')
  }
  np.testing.assert_allclose(loss, expected['loss'], rtol=1e-5)
  np.testing.assert_allclose(
    loss - sums['cross_entropy'], expected['z_loss'], rtol=1e-3, atol=1e-4
  )
  np.testing.assert_allclose(sums['tokens'], expected['weight_sum'])
  np.testing.assert_allclose(
    gradient, expected['gradient'], rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize('alpha', [0.0, 0.6, 1.5])
def test_beam_search_follows_t5x(alpha):
  """Our loop over tables of logits; the cache must follow its beam."""
  golden = load('beams')
  tables = jnp.asarray(golden['tables'], jnp.float32)
  expected = golden[f'alpha_{alpha:g}/tokens']
  batch, num_beams, length = expected.shape

  def step(tokens, cache):
    rows = jnp.arange(batch * num_beams)
    index = cache['index']
    context = (tokens + 3 * cache['before']) % tables.shape[-1]
    logits = tables[rows // num_beams, index, context]
    return logits, {'index': index + 1, 'before': tokens}

  cache = {
    'index': jnp.zeros((), jnp.int32),
    'before': jnp.zeros((batch * num_beams,), jnp.int32),
  }
  method = decoding.BeamSearch(num_beams=num_beams, length_penalty=alpha)
  tokens, scores = decoding._beam_search(step, cache, batch, length, method, 1)
  np.testing.assert_array_equal(tokens, expected)
  np.testing.assert_allclose(
    scores, golden[f'alpha_{alpha:g}/scores'], rtol=1e-5
  )


@pytest.mark.parametrize('alpha', [0.0, 0.6, 1.5])
def test_beam_reference_follows_t5x(alpha):
  golden = load('beams')
  expected = golden[f'alpha_{alpha:g}/tokens']
  scores = golden[f'alpha_{alpha:g}/scores']
  _, num_beams, length = expected.shape
  for table, rows, row_scores in zip(golden['tables'], expected, scores):

    def next_logits(prefixes, table=table):
      last_two = np.array([([0, 0] + prefix)[-2:] for prefix in prefixes])
      context = (last_two[:, 1] + 3 * last_two[:, 0]) % table.shape[-1]
      return table[len(prefixes[0])][context]

    found = beam_reference.beam_search(
      next_logits, num_beams=num_beams, max_length=length, alpha=alpha
    )
    for row, score, tokens, ours in zip(
      rows, row_scores, found.tokens, found.scores
    ):
      assert list(row[row != 0]) == tokens
      np.testing.assert_allclose(ours, score, rtol=1e-5)
