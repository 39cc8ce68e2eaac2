"""Makes tests/testdata/t5x_{adafactor,losses,beams}.npz from T5X.

  python -m tests.oracles.make_t5x_goldens

Needs an importable t5x (https://github.com/google-research/t5x). The files
hold inputs and what T5X's own adafactor.py, losses.py and decoding.py make
of them in float32 on CPU.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from t5x import adafactor
from t5x import decoding
from t5x import losses
from t5x import optimizers

from tests.oracles import adafactor_case as case

TESTDATA = pathlib.Path(__file__).resolve().parents[1] / 'testdata'


def main():
  np.savez_compressed(TESTDATA / 't5x_adafactor.npz', **adafactor_golden())
  np.savez_compressed(TESTDATA / 't5x_losses.npz', **losses_golden())
  np.savez_compressed(TESTDATA / 't5x_beams.npz', **beams_golden())


def adafactor_golden() -> dict[str, np.ndarray]:
  """Parameters and slots after STEPS updates, from step 0 and from 7200."""
  golden = {}
  optimizer = adafactor.Adafactor(
    decay_rate=0.8,
    step_offset=0,
    multiply_by_parameter_scale=True,
  )
  params = {k: jnp.asarray(v) for k, v in case.parameters().items()}
  state = optimizer.init_state(params)
  for run, first_step in case.RUNS.items():
    # The slots of the first run are carried into the second.
    state = optimizers.OptimizerState(
      jnp.asarray(first_step, jnp.int32), state.param_states
    )
    for step in range(first_step, first_step + case.STEPS):
      hyper_params = optimizer.hyper_params.replace(
        learning_rate=case.learning_rate(step)
      )
      grads = {name: jnp.asarray(case.gradient(name, step)) for name in params}
      params, state = optimizer.apply_gradient(
        hyper_params, params, state, grads
      )
      if step in (first_step, first_step + case.STEPS - 1):
        prefix = f'{run}/{step - first_step + 1}'
        golden |= snapshot(prefix, params, state.param_states)
  return golden


def snapshot(prefix: str, params: dict, param_states: dict) -> dict:
  """Every STRIDE-th entry of parameters and slots, and shapes and sums."""
  arrays = {f'{name}/param': x for name, x in params.items()}
  for name, slots in param_states.items():
    for slot in ('v_row', 'v_col', 'v', 'm'):
      arrays[f'{name}/{slot}'] = getattr(slots, slot)
  out = {}
  for path, x in arrays.items():
    x = np.asarray(x, np.float32)
    out[f'{prefix}/{path}/shape'] = np.array(x.shape, np.int32)
    out[f'{prefix}/{path}/sum'] = x.astype(np.float64).sum()
    out[f'{prefix}/{path}/entries'] = x.ravel()[:: case.STRIDE]
  return out


def losses_golden() -> dict[str, np.ndarray]:
  """Summed loss, z-loss, weights and gradient with z_loss 1e-4."""
  rng = np.random.default_rng(1)
  logits = np.float32(rng.standard_normal((3, 7, 40)) * 4 + 5)
  targets = rng.integers(1, 40, (3, 7), np.int32)
  weights = np.float32(rng.random((3, 7)) > 0.3)
  arrays = {'logits': logits, 'targets': targets, 'weights': weights}
  for z_loss in (0.0, 1e-4):

    def total(x, z_loss=z_loss):
      loss, z, count = losses.compute_weighted_cross_entropy(
        x, targets, weights, z_loss=z_loss
      )
      return loss, (z, count)

    (loss, (z, count)), gradient_ = jax.value_and_grad(total, has_aux=True)(
      jnp.asarray(logits)
    )
    name = f'z_loss_{z_loss:g}'
    arrays |= {
      f'{name}/loss': loss,
      f'{name}/z_loss': z,
      f'{name}/weight_sum': count,
      f'{name}/gradient': gradient_,
    }
  return arrays


def beams_golden() -> dict[str, np.ndarray]:
  """T5X's beam search over tables of next-token logits.

  A table [b, length, v, v] stands for a model: logits depend on the source,
  the position and a mixture of the last two tokens, (last + 3 before) mod v.
  """
  rng = np.random.default_rng(2)
  batch, length, vocab, num_beams = 6, 10, 12, 3
  tables = np.float32(rng.standard_normal((batch, length, vocab, vocab)) * 2)
  tables[..., 1] += np.float32(rng.uniform(-1, 2, (batch, 1, 1)))
  tables[..., 0] -= 20.0  # padding is never decoded
  tables = np.float32(np.float16(tables))

  def tokens_to_logits(state):
    source = jnp.arange(batch * num_beams) // num_beams
    index = state.cur_index
    rows = jnp.arange(batch * num_beams)
    before = state.sequences[rows, jnp.maximum(index - 1, 0)]
    context = (state.cur_token[:, 0] + 3 * before) % vocab
    return jnp.asarray(tables)[source, index, context], state.cache

  arrays = {'tables': tables.astype(np.float16)}
  for alpha in (0.0, 0.6, 1.5):
    tokens, scores = decoding.beam_search(
      jnp.zeros((batch, length), jnp.int32),
      {},
      tokens_to_logits,
      eos_id=1,
      num_decodes=num_beams,
      alpha=alpha,
    )
    # T5X puts the best last.
    arrays[f'alpha_{alpha:g}/tokens'] = np.asarray(tokens)[:, ::-1]
    arrays[f'alpha_{alpha:g}/scores'] = np.asarray(scores)[:, ::-1]
  return arrays


if __name__ == '__main__':
  main()
