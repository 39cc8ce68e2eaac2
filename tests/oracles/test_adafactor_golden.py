"""Our Adafactor against golden values of T5X's own (make_t5x_goldens.py)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gqa_flax.training import optimizer
from tests.oracles import adafactor_case as case

GOLDEN = pathlib.Path(__file__).parents[1] / 'testdata' / 't5x_adafactor.npz'
SLOTS = ('v_row', 'v_col', 'v', 'm')


def schedule(step):
  """`case.learning_rate` as a function of a traced step."""
  return jax.lax.rsqrt(jnp.maximum(jnp.asarray(step, jnp.float32), 10.0))


@pytest.fixture(scope='module')
def golden():
  with np.load(GOLDEN) as file:
    return dict(file)


@pytest.fixture(scope='module')
def ours():
  """{prefix of the golden: (parameters, T5X's tree of slots)}."""
  transformation = optimizer.adafactor(schedule)
  params = {k: jnp.asarray(v) for k, v in case.parameters().items()}
  state = transformation.init(params)

  @jax.jit
  def update(params, state, grads):
    updates, state = transformation.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  snapshots = {}
  for run, first_step in case.RUNS.items():
    # As when a checkpoint is restored: slots carried, every count set.
    slots = optimizer.to_param_states(state)
    state = optimizer.from_param_states(slots, first_step, state)
    for step in range(first_step, first_step + case.STEPS):
      grads = {k: jnp.asarray(case.gradient(k, step)) for k in params}
      params, state = update(params, state, grads)
      slots = optimizer.to_param_states(state)
      snapshots[f'{run}/{step - first_step + 1}'] = params, slots
  return snapshots


@pytest.mark.parametrize('name', case.SHAPES)
@pytest.mark.parametrize('moment', [1, case.STEPS])
@pytest.mark.parametrize('run', case.RUNS)
def test_adafactor_follows_t5x(golden, ours, run, moment, name):
  params, slots = ours[f'{run}/{moment}']
  arrays = {'param': params[name]} | slots[name]
  assert set(arrays) == {'param', *SLOTS}
  for leaf, x in arrays.items():
    prefix = f'{run}/{moment}/{name}/{leaf}'
    assert x.shape == tuple(golden[f'{prefix}/shape']), prefix
    assert x.dtype == jnp.float32, prefix
    x = np.asarray(x)
    np.testing.assert_allclose(
      x.ravel()[:: case.STRIDE],
      golden[f'{prefix}/entries'],
      rtol=2e-5,
      atol=1e-7 if leaf == 'param' else 0,
      err_msg=prefix,
    )
    np.testing.assert_allclose(
      x.astype(np.float64).sum(),
      golden[f'{prefix}/sum'],
      rtol=1e-5,
      atol=1e-4 if leaf == 'param' else 0,
      err_msg=prefix,
    )


def test_adafactor_case_covers_both_kinds_of_second_moment(golden):
  """Wide and tall are factored the other way round; narrow ones not."""
  shape = lambda path: tuple(golden[f'from_0/1/{path}/shape'])
  assert shape('square/v_row') == (128,) and shape('square/v') == (1,)
  assert shape('wide/v_row') == (128,) and shape('wide/v_col') == (160,)
  assert shape('tall/v_row') == (128,) and shape('tall/v_col') == (192,)
  for name in ('narrow_32', 'narrow_64', 'scale', 'bias_table'):
    assert shape(f'{name}/v') == case.SHAPES[name]
    assert shape(f'{name}/v_row') == (1,)
