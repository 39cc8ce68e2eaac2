"""The training state: parameters, optimizer state, step."""

from typing import Any

import flax
from flax import traverse_util
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import optax

from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.model import network
from gqa_flax.model import sharding
from gqa_flax.training import optimizer


@flax.struct.dataclass
class TrainState:
  """step: int32 scalar, updates made; params float32; opt_state optax's."""

  step: jax.Array
  params: Any
  opt_state: Any


def init_params(model: network.Transformer, seed: int) -> dict:
  """{'params': ..., 'params_axes': ...} of fresh parameters."""
  tokens = jnp.ones((1, 8), jnp.int32)
  return model.init(
    {'params': jax.random.key(seed)},
    tokens,
    tokens,
    tokens,
    enable_dropout=False,
  )


def shardings(
  model: network.Transformer, tx: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
  """A TrainState of NamedSharding; optimizer slots as T5X has them.

  Unfactored second moments lie as their parameter does, factored ones are
  replicated.
  """
  variables = jax.eval_shape(lambda: init_params(model, 0))
  params = sharding.param_shardings(
    variables['params_axes'], mesh, model.config.num_kv_heads
  )
  whole = sharding.replicated(mesh)
  opt_shape = jax.eval_shape(tx.init, variables['params'])
  opt_state = jax.tree.map(lambda _: whole, opt_shape)
  v = jax.tree.map(
    lambda slot, param, place: place if slot.shape == param.shape else whole,
    opt_shape[0].v,
    variables['params'],
    params,
  )
  opt_state = (opt_state[0]._replace(v=v),) + opt_state[1:]
  return TrainState(step=whole, params=params, opt_state=opt_state)


def create(
  model: network.Transformer,
  tx: optax.GradientTransformation,
  mesh: Mesh,
  seed: int,
) -> TrainState:
  """Fresh parameters and slots, at step 0."""

  def init():
    params = init_params(model, seed)['params']
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))

  return jax.jit(init, out_shardings=shardings(model, tx, mesh))()


def to_checkpoint(state: TrainState) -> dict:
  """T5X's tree: target, state/step, state/param_states."""
  return {
    'target': state.params,
    'state': {
      'step': state.step,
      'param_states': optimizer.to_param_states(state.opt_state),
    },
  }


def restore(
  path, model: network.Transformer, tx: optax.GradientTransformation, mesh
) -> TrainState:
  """Reads a checkpoint as float32; its shapes must be the model's.

  A checkpoint without optimizer slots starts with fresh ones, and its step.

  Raises:
    UserError: unreadable, or missing, extra or misshapen tensors (all named).
  """
  path = t5x_orbax.resolve(path)
  places = shardings(model, tx, mesh)
  abstract = jax.eval_shape(
    lambda: TrainState(
      jnp.zeros((), jnp.int32),
      params := init_params(model, 0)['params'],
      tx.init(params),
    )
  )
  expected = traverse_util.flatten_dict(
    jax.eval_shape(to_checkpoint, abstract), sep='/'
  )
  metadata = t5x_orbax.read_metadata(path)
  has_slots = any(name.startswith('state/param_states') for name in metadata)
  if not has_slots:
    expected = {
      name: shape
      for name, shape in expected.items()
      if not name.startswith('state/param_states')
    }
  t5x_orbax.validate(metadata, expected, where=str(path))
  stored = t5x_orbax.restore(path)
  step = jnp.asarray(stored['state']['step'], jnp.int32)
  if has_slots:
    opt_state = optimizer.from_param_states(
      stored['state']['param_states'], step, abstract.opt_state
    )
  else:
    fresh = jax.eval_shape(tx.init, stored['target'])
    opt_state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), fresh)
    opt_state = optimizer.with_count(opt_state, step)
  return jax.device_put(TrainState(step, stored['target'], opt_state), places)
