"""T5's Adafactor, its schedules, and T5X's layout of its state.

optax.adafactor follows the same rule as T5X's adafactor.py with T5's
hyperparameters; the two differ in how they lay their state out. Checkpoints
hold T5X's layout: for each parameter the leaves v_row, v_col, v and m, those
not in use being zeros of shape (1,).
"""

from collections.abc import Callable

from flax import traverse_util
import jax
import jax.numpy as jnp
import optax

# Both sides of a matrix must reach this for factored second moments.
MIN_DIM_SIZE_TO_FACTOR = 128

Schedule = Callable[[jax.Array], jax.Array]


def inverse_square_root(
  scale: float = 1.0, decay_from: int = 10_000, warmup_steps: int = 0
) -> Schedule:
  """scale / sqrt(max(step, decay_from)), after a linear warm-up.

  The defaults are T5's pre-training schedule ('constant * rsqrt_decay' of
  T5X with 10,000 warm-up steps: constant at 0.01, then 1/sqrt(step)).

  Args:
    scale: factor of the whole schedule.
    decay_from: step until which the rate stays constant.
    warmup_steps: steps of a linear rise from 0; 0 for none.
  """

  def schedule(step):
    step = jnp.asarray(step, jnp.float32)
    rate = scale * jax.lax.rsqrt(jnp.maximum(step, decay_from))
    if warmup_steps:
      rate *= jnp.minimum(1.0, step / warmup_steps)
    return rate

  return schedule


def constant(learning_rate: float = 1e-3) -> Schedule:
  """The paper's fine-tuning schedule."""
  return lambda step: jnp.full((), learning_rate, jnp.float32)


def linear_to_zero(
  learning_rate: float, train_steps: int, steps: int
) -> Schedule:
  """A straight fall from `learning_rate` to 0, for short fine-tuning.

  The paper's constant rate is for runs to convergence: one that is stopped
  after some hundred updates would keep the noise of the last ones.

  Args:
    learning_rate: of the first update.
    train_steps: step at which the rate reaches 0: where the run ends.
    steps: updates of the run.
  """

  def schedule(step):
    left = (train_steps - jnp.asarray(step, jnp.float32)) / steps
    return learning_rate * jnp.clip(left, 0.0, 1.0)

  return schedule


def adafactor(
  learning_rate: Schedule | float, step_offset: int = 0
) -> optax.GradientTransformation:
  """Adafactor with T5's hyperparameters.

  Second-moment decay 1 - t^-0.8, factored, updates clipped to RMS 1 and
  scaled by the RMS of the parameter (at least 1e-3), no momentum.

  Args:
    learning_rate: a rate, or a function of the step.
    step_offset: step from which the decay of second moments counts; T5X's
      `step_offset`.
  """
  return optax.adafactor(
    learning_rate,
    min_dim_size_to_factor=MIN_DIM_SIZE_TO_FACTOR,
    decay_rate=0.8,
    decay_offset=step_offset,
    multiply_by_parameter_scale=True,
    clipping_threshold=1.0,
    momentum=None,
    eps=1e-30,
  )


_SLOTS = ('v_row', 'v_col', 'v')


def _factored_state(opt_state):
  """The FactoredState within the state of optax.adafactor."""
  return opt_state[0]


def to_param_states(opt_state) -> dict:
  """optax.adafactor's state -> T5X's tree of {v_row, v_col, v, m}."""
  factored = _factored_state(opt_state)
  slots = {
    slot: traverse_util.flatten_dict(getattr(factored, slot)) for slot in _SLOTS
  }
  flat = {}
  for path in slots['v']:
    for slot in _SLOTS:
      flat[path + (slot,)] = slots[slot][path]
    flat[path + ('m',)] = jnp.zeros((1,), jnp.float32)
  return traverse_util.unflatten_dict(flat)


def from_param_states(param_states: dict, step, opt_state):
  """T5X's tree -> a state of optax.adafactor.

  Args:
    param_states: tree of {v_row, v_col, v, m}; float32.
    step: int32 scalar, updates made so far.
    opt_state: a state of optax.adafactor, or its shapes, for the structure.

  Returns:
    The state, with every count at `step`.
  """
  flat = traverse_util.flatten_dict(param_states)

  def tree(slot):
    return traverse_util.unflatten_dict(
      {path[:-1]: x for path, x in flat.items() if path[-1] == slot}
    )

  factored = _factored_state(opt_state)._replace(
    **{slot: tree(slot) for slot in _SLOTS}
  )
  return with_count((factored,) + tuple(opt_state[1:]), step)


def with_count(opt_state, step):
  """The same state with every count at `step`, each a buffer of its own.

  (A buffer that two leaves share could not be donated to the next update.)
  """
  return tuple(
    s._replace(count=jnp.array(step, jnp.int32)) if 'count' in s._fields else s
    for s in opt_state
  )
