"""A (data, model) mesh and the rules that lay arrays out on it.

The rules are T5X's standard ones: batch over data; vocabulary, MLP, heads and
joined heads over model; the rest replicated.
"""

import contextlib

from flax import core
from flax.linen import partitioning
import jax
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np


def make_mesh(model_partitions: int = 1, devices=None) -> Mesh:
  """A mesh of all devices with axes (data, model).

  Raises:
    ValueError: the number of devices is not a multiple of model_partitions.
  """
  devices = np.asarray(jax.devices() if devices is None else devices)
  if model_partitions < 1 or devices.size % model_partitions:
    raise ValueError(
      f'The number of devices ({devices.size}) must be a multiple of '
      f'model_partitions ({model_partitions}).'
    )
  return Mesh(devices.reshape(-1, model_partitions), ('data', 'model'))


def axis_rules(
  num_kv_heads: int, model_partitions: int
) -> tuple[tuple[str, str | None], ...]:
  """Logical axis -> mesh axis.

  K/V heads go over `model` only where they divide evenly: a split inside a
  head would reshard at every step.
  """
  kv_heads = 'model' if num_kv_heads % model_partitions == 0 else None
  return (
    ('batch', 'data'),
    ('vocab', 'model'),
    ('mlp', 'model'),
    ('heads', 'model'),
    ('joined_kv', 'model'),
    ('kv_heads', kv_heads),
    ('embed', None),
    ('kv', None),
    ('length', None),
    ('relpos_buckets', None),
  )


@contextlib.contextmanager
def on_mesh(mesh: Mesh, num_kv_heads: int):
  """Traces within it place activations by the rules; one device needs none."""
  if mesh.size == 1:
    yield
    return
  rules = axis_rules(num_kv_heads, mesh.shape['model'])
  with mesh, partitioning.axis_rules(rules):
    yield


def param_shardings(params_axes, mesh: Mesh, num_kv_heads: int):
  """Tree of NamedSharding for parameters, from their logical axes.

  Args:
    params_axes: the collection `params_axes` that `init` returns.
    mesh: axes (data, model).
    num_kv_heads: see `axis_rules`.
  """
  rules = axis_rules(num_kv_heads, mesh.shape['model'])

  def place(spec):
    return NamedSharding(
      mesh, partitioning.logical_to_mesh_axes(tuple(spec), rules)
    )

  return jax.tree.map(
    place,
    core.unfreeze(partitioning.get_axis_names(params_axes)),
    is_leaf=lambda x: isinstance(x, PartitionSpec),
  )


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """First axis over `data`."""
  return NamedSharding(mesh, PartitionSpec('data'))
