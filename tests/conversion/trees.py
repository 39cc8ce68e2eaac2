"""Random T5.1.1 trees for tests: parameters, slots, whole states."""

from flax import traverse_util
import ml_dtypes
import numpy as np

from gqa_flax.conversion import plan
from gqa_flax.conversion import slots
from gqa_flax.model import config as config_lib


def config(num_heads=4, num_kv_heads=None, head_dim=8, emb_dim=16, **kwargs):
  fields = dict(
    vocab_size=40,
    emb_dim=emb_dim,
    num_heads=num_heads,
    num_kv_heads=num_kv_heads,
    num_encoder_layers=1,
    num_decoder_layers=2,
    head_dim=head_dim,
    mlp_dim=24,
    mlp_activations=('gelu', 'linear'),
  )
  return config_lib.T5Config(**(fields | kwargs))


def flat_params(cfg, seed=0, dtype=np.float32):
  rng = np.random.default_rng(seed)
  return {
    path: rng.normal(size=shape).astype(dtype)
    for path, shape in plan.parameter_shapes(cfg).items()
  }


def slot(rng, shape, *, factored=True, momentum=False, min_dim=128):
  """A slot in the state that Adafactor leaves it in: from a positive v."""
  shapes = slots.slot_shapes(
    shape, factored=factored, momentum=momentum, min_dim_size_to_factor=min_dim
  )
  leaves = {n: np.zeros(s, np.float32) for n, s in shapes.items()}
  v = rng.uniform(1e-6, 1e-3, size=shape).astype(np.float32)
  axes = slots.factored_axes(shape, min_dim) if factored else None
  if axes is None:
    leaves['v'] = v
  else:
    leaves['v_row'] = v.mean(axis=axes[1])
    leaves['v_col'] = v.mean(axis=axes[0])
  if momentum:
    leaves['m'] = rng.normal(size=shape).astype(np.float32)
  return leaves


def flat_slots(params, seed=1, **kwargs):
  rng = np.random.default_rng(seed)
  return {
    f'{path}/{name}': leaf
    for path, param in params.items()
    for name, leaf in slot(rng, param.shape, **kwargs).items()
  }


def state(cfg, *, step=1000, seed=0, dtype=np.float32, with_slots=True):
  """What `t5x_orbax.save` takes."""
  params = flat_params(cfg, seed, dtype)
  tree = {
    'target': traverse_util.unflatten_dict(params, sep='/'),
    'state': {'step': np.int32(step)},
  }
  if with_slots:
    tree['state']['param_states'] = traverse_util.unflatten_dict(
      flat_slots(params, seed + 1), sep='/'
    )
  return tree


bfloat16 = ml_dtypes.bfloat16
