"""How a group's key (value) kernels become one (paper, sections 2.1, 3.3).

Every method is a function of one kernel in, one kernel out. Pooling is done in
float32 and cast back to the dtype of the source.

  mean    the mean of the group's projection matrices: the paper's choice
  first   the group's first head
  random  the initialiser of the layer, seeded: no knowledge is kept
"""

from collections.abc import Mapping
import hashlib
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from gqa_flax.conversion import grouping
from gqa_flax.errors import UserError
from gqa_flax.model import attention

METHODS = ('mean', 'first', 'random')


def convert_params(
  params: Mapping[str, Any],
  *,
  num_heads: int,
  num_kv_heads: int,
  method: str = 'mean',
  seed: int = 0,
) -> dict[str, Any]:
  """Converts a parameter tree to num_kv_heads key/value heads.

  Args:
    params: T5X's unscanned T5.1.1 tree (no 'target' above it). The decoder's
      K and V kernels are [embed, k * head_dim]; k is read off their width.
    num_heads: query heads.
    num_kv_heads: G; it must divide num_heads and k.
    method: one of METHODS.
    seed: of 'random'.

  Returns:
    A nested dict; all tensors but those kernels are the same objects, and with
    G = k those too.

  Raises:
    UserError: G does not divide.
  """
  flat = traverse_util.flatten_dict(dict(params), sep='/')
  for path, kernel in flat.items():
    if not grouping.is_kv_kernel(path):
      continue
    query = flat[path.rsplit('/', 2)[0] + '/query/kernel']
    head_dim = query.shape[1] // num_heads
    before = kernel.shape[1] // head_dim
    grouping.check_groups(num_heads, before, num_kv_heads)
    flat[path] = convert_kernel(
      kernel,
      path=path,
      num_kv_heads_before=before,
      num_kv_heads=num_kv_heads,
      method=method,
      seed=seed,
    )
  return traverse_util.unflatten_dict(flat, sep='/')


def convert_kernel(
  kernel: Any,
  *,
  path: str,
  num_kv_heads_before: int,
  num_kv_heads: int,
  method: str = 'mean',
  seed: int = 0,
) -> Any:
  """[e, k*d] -> [e, G*d], in the dtype of the kernel.

  With G = k the kernel itself is returned, whatever the method: there is
  nothing to merge, and conversion to the heads there are is the identity.

  Args:
    kernel: numpy or jax array; a numpy array gives a numpy array.
    path: of the parameter; 'random' derives its key from it.
    num_kv_heads_before: k.
    num_kv_heads: G.
    method: one of METHODS.
    seed: of 'random'.
  """
  check_method(method)
  if num_kv_heads == num_kv_heads_before:
    return kernel
  heads = grouping.split_heads(kernel, num_kv_heads_before, num_kv_heads)
  if method == 'random':
    shape = (kernel.shape[0], num_kv_heads * heads.shape[-1])
    return _random(kernel, shape, path, seed)
  if method == 'mean':
    merged = heads.astype(np.float32).mean(axis=2).astype(kernel.dtype)
  else:
    merged = heads[:, :, 0]
  return grouping.join_heads(merged)  # [e, G*d]


def check_method(method: str):
  """Raises UserError unless the method is one of METHODS."""
  if method not in METHODS:
    raise UserError(f'method ({method!r}) must be one of {", ".join(METHODS)}.')


def _random(kernel, shape, path: str, seed: int):
  """The layer's own initialiser, with a key of its own for every tensor."""
  digest = hashlib.sha256(path.encode()).digest()
  data = int.from_bytes(digest[:4], 'little')
  if isinstance(kernel, jax.Array):
    key = jax.random.fold_in(jax.random.key(seed), data)
    return attention.kernel_init(key, shape, jnp.float32).astype(kernel.dtype)
  # Always on the CPU: the same numbers whatever accelerator is at hand.
  with jax.default_device(jax.local_devices(backend='cpu')[0]):
    key = jax.random.fold_in(jax.random.key(seed), data)
    fresh = attention.kernel_init(key, shape, jnp.float32)
  return np.asarray(fresh).astype(kernel.dtype)
