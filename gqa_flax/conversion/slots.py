"""What becomes of Adafactor's slots when key (value) heads are merged.

T5X's Adafactor (t5x/adafactor.py) keeps, for every parameter, the leaves
v_row, v_col, v and m; unused ones are zeros of shape (1,). v estimates the
second moment E[grad^2]. A matrix whose smaller side has at least 128 entries is
factored: only the means of v along each axis are kept, and v is taken for

    v[i, j] = row[i] * col[j] / mean(row)                    (rank 1)

v_row runs along the *smaller* side, v_col along the larger (of equal sides,
v_row along the first), so that merging heads, which narrows a [e, k*d] kernel,
may swap the two; and below 128 columns the kernel is no longer factored at all.

The moment of a merged head. The network that conversion makes reads one head
wherever it read the m heads of a group before, so the gradient of the merged
kernel is, by the chain rule, the *sum* of the gradients of the m uses, whatever
value (mean, first, random) the kernel was given. Hence

    E[(g_1 + ... + g_m)^2] = sum_i E[g_i^2] + cross terms,

and the cross terms are left out: the merged moment is the sum of the m moments.
(Measured on the mini model after 3,600 steps, mean-pooled to G = 1, 2 and 4,
eight batches of 32: the left side is 0.83 to 1.07 of the sum, for each of the
twelve kernels.) The mean of the moments, by analogy with the kernel, would be m
times too small: steps sqrt(m) too long, held by nothing but Adafactor's clip at
RMS 1, until v has caught up; at step 1e6 that takes tens of thousands of steps.
`moment_of_merged` is the one place to change this.
"""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from gqa_flax.conversion import grouping
from gqa_flax.errors import UserError

POLICIES = ('pool', 'reset', 'drop')
LEAVES = ('m', 'v', 'v_col', 'v_row')
MIN_DIM_SIZE_TO_FACTOR = 128
_UNUSED = (1,)


def moment_of_merged(moments: Any, axis: int) -> Any:
  """Second moment of a merged head from those of its heads: their sum."""
  return moments.sum(axis=axis)


def factored_axes(
  shape: tuple[int, ...],
  min_dim_size_to_factor: int = MIN_DIM_SIZE_TO_FACTOR,
) -> tuple[int, int] | None:
  """The axes that v_row and v_col run along; None if not factored.

  The rule of T5X and of optax, ties included (argsort's order).
  """
  if len(shape) < 2:
    return None
  order = np.argsort(shape)
  if shape[order[-2]] < min_dim_size_to_factor:
    return None
  return int(order[-2]), int(order[-1])


def slot_shapes(
  shape: tuple[int, ...],
  *,
  factored: bool = True,
  momentum: bool = False,
  min_dim_size_to_factor: int = MIN_DIM_SIZE_TO_FACTOR,
) -> dict[str, tuple[int, ...]]:
  """Shapes of the four leaves of a parameter of rank 0, 1 or 2.

  Args:
    shape: of the parameter.
    factored: False for an optimizer that never factors.
    momentum: whether m is in use (T5 does without).
    min_dim_size_to_factor: see `factored_axes`.
  """
  axes = factored_axes(shape, min_dim_size_to_factor) if factored else None
  shapes = dict.fromkeys(LEAVES, _UNUSED)
  if axes is None:
    shapes['v'] = tuple(shape)
  else:
    shapes['v_row'] = (shape[axes[0]],)
    shapes['v_col'] = (shape[axes[1]],)
  if momentum:
    shapes['m'] = tuple(shape)
  return shapes


def converted_shapes(
  slot: Mapping[str, Any],
  shape: tuple[int, ...],
  new_shape: tuple[int, ...],
  min_dim_size_to_factor: int = MIN_DIM_SIZE_TO_FACTOR,
) -> dict[str, tuple[int, ...]]:
  """Shapes of the leaves after a kernel went from `shape` to `new_shape`.

  Raises:
    ValueError: the leaves are not those of a parameter of that shape.
  """
  return slot_shapes(
    new_shape,
    factored=is_factored(slot, shape, min_dim_size_to_factor),
    momentum=_shape(slot['m']) == tuple(shape),
    min_dim_size_to_factor=min_dim_size_to_factor,
  )


def is_factored(
  slot: Mapping[str, Any],
  shape: tuple[int, ...],
  min_dim_size_to_factor: int = MIN_DIM_SIZE_TO_FACTOR,
) -> bool:
  """Whether a slot is factored; it must fit a parameter of that shape.

  A matrix large enough may still hold a full v: its optimizer never factors.

  Raises:
    ValueError: leaves missing or of shapes that Adafactor does not make.
  """
  found = {name: _shape(leaf) for name, leaf in slot.items()}
  momentum = found.get('m') == tuple(shape) and tuple(shape) != _UNUSED
  for factored in (False, True):
    expected = slot_shapes(
      shape,
      factored=factored,
      momentum=momentum,
      min_dim_size_to_factor=min_dim_size_to_factor,
    )
    if found == expected:
      return factored
  raise ValueError(
    f'slots {found} do not fit a parameter {tuple(shape)}; expected {expected}'
  )


def convert_slots(
  param_states: Mapping[str, Any],
  shapes: Mapping[str, Any],
  *,
  num_heads: int,
  num_kv_heads: int,
  policy: str = 'pool',
  method: str = 'mean',
  min_dim_size_to_factor: int = MIN_DIM_SIZE_TO_FACTOR,
) -> dict[str, Any] | None:
  """Slots for the converted parameters.

  Args:
    param_states: the parameters' tree with {v_row, v_col, v, m} at its leaves.
    shapes: path -> shape of every parameter before, without 'target/'.
    num_heads: query heads.
    num_kv_heads: G.
    policy: 'pool' merges the moments of merged heads and keeps all others;
      'reset' sets all to zero; 'drop' returns None. The last two need the
      optimizer's step_offset set to the step of the checkpoint, or its averages
      would take tens of thousands of steps to fill.
    method: how kernels were merged (methods.METHODS); momentum, being an
      average of updates to the kernel, is merged as the kernel is.
    min_dim_size_to_factor: see `factored_axes`.

  Returns:
    A tree like param_states; slots of tensors that do not change are the same
    objects under 'pool'.
  """
  check_policy(policy)
  if policy == 'drop':
    return None
  flat = traverse_util.flatten_dict(dict(param_states), sep='/')
  converted = dict(flat)
  for path, shape in shapes.items():
    shape = _shape(shape)
    slot = {name: flat[f'{path}/{name}'] for name in LEAVES}
    if grouping.is_kv_kernel(path):
      query = _shape(shapes[path.rsplit('/', 2)[0] + '/query/kernel'])
      slot = convert_slot(
        slot,
        shape,
        num_kv_heads_before=shape[1] * num_heads // query[1],
        num_kv_heads=num_kv_heads,
        method=method,
        min_dim_size_to_factor=min_dim_size_to_factor,
      )
    if policy == 'reset':
      slot = {name: _zeros(leaf) for name, leaf in slot.items()}
    for name, leaf in slot.items():
      converted[f'{path}/{name}'] = leaf
  return traverse_util.unflatten_dict(converted, sep='/')


def convert_slot(
  slot: Mapping[str, Any],
  shape: tuple[int, int],
  *,
  num_kv_heads_before: int,
  num_kv_heads: int,
  method: str = 'mean',
  min_dim_size_to_factor: int = MIN_DIM_SIZE_TO_FACTOR,
) -> dict[str, Any]:
  """The four leaves of one K or V kernel [e, k*d], for [e, G*d].

  Factored slots are merged along the columns' vector alone, which is the same
  as rebuilding v, merging its columns and averaging again (tested). Where the
  new kernel is too narrow to be factored, v is rebuilt.
  """
  if num_kv_heads == num_kv_heads_before:
    return dict(slot)
  new_shape = (shape[0], shape[1] * num_kv_heads // num_kv_heads_before)

  def merge(moments):  # [n, k*d] -> [n, G*d]
    heads = grouping.split_heads(moments, num_kv_heads_before, num_kv_heads)
    return grouping.join_heads(moment_of_merged(heads, axis=2))

  merged = dict(slot)
  axes = factored_axes(shape, min_dim_size_to_factor)
  if not is_factored(slot, shape, min_dim_size_to_factor):
    merged['v'] = merge(slot['v'])
  else:
    rows, columns = _by_axis(slot, axes)
    merged |= _factored(
      *_merge_factored(rows, columns, slot['v_row'].mean(), merge),
      factored_axes(new_shape, min_dim_size_to_factor),
      unused=slot['v'],
    )
  if _shape(slot['m']) == tuple(shape):
    merged['m'] = _merge_momentum(
      slot['m'], num_kv_heads_before, num_kv_heads, method
    )
  return merged


def validate_slots(
  slots: Mapping[str, Any],
  shapes: Mapping[str, Any],
  min_dim_size_to_factor: int = MIN_DIM_SIZE_TO_FACTOR,
):
  """Checks that slots are those of Adafactor for parameters of these shapes.

  Args:
    slots: 'PARAMETER/v_row' etc. -> anything with a shape, or a tuple.
    shapes: 'PARAMETER' -> the same.

  Raises:
    UserError: lists all that are missing, unexpected or misshapen.
  """
  problems = []
  known = set()
  for path, shape in shapes.items():
    names = {name: f'{path}/{name}' for name in LEAVES}
    known.update(names.values())
    missing = [name for name in names.values() if name not in slots]
    problems += [f'missing {name}' for name in missing]
    if missing:
      continue
    slot = {leaf: slots[name] for leaf, name in names.items()}
    try:
      is_factored(slot, _shape(shape), min_dim_size_to_factor)
    except ValueError as error:
      problems.append(f'{path}: {error}')
  problems += [f'unexpected {name}' for name in sorted(set(slots) - known)]
  if problems:
    raise UserError(
      'The optimizer state is not that of Adafactor for this model: '
      + '; '.join(problems)
    )


def check_policy(policy: str):
  """Raises UserError unless the policy is one of POLICIES."""
  if policy not in POLICIES:
    raise UserError(
      f'optimizer ({policy!r}) must be one of {", ".join(POLICIES)}.'
    )


def _by_axis(slot, axes):
  """(vector along axis 0, vector along axis 1) of a factored slot."""
  along = {axes[0]: slot['v_row'], axes[1]: slot['v_col']}
  return along[0], along[1]


def _merge_factored(rows, columns, mean, merge):
  """Means along each axis of the merged v[i, j] = rows[i] columns[j] / mean.

  Returns (rows [e], columns [G*d]), in the form that Adafactor keeps.
  """
  mean = mean + (mean == 0)  # A slot yet to be filled stays zero.
  columns = merge(columns[None])[0]  # [G*d]
  return rows * (columns.mean() / mean), columns * (rows.mean() / mean)


def _factored(rows, columns, axes, unused):
  """The leaves v_row, v_col, v of a v whose means are rows and columns."""
  if axes is None:  # Too narrow: v in full. Divided first: v is tiny.
    mean = columns.mean()
    v = (rows / (mean + (mean == 0)))[:, None] * columns
    return {'v_row': unused, 'v_col': unused, 'v': v}
  by_axis = (rows, columns)
  return {'v_row': by_axis[axes[0]], 'v_col': by_axis[axes[1]], 'v': unused}


def _merge_momentum(momentum, before: int, num_kv_heads: int, method: str):
  heads = grouping.split_heads(momentum, before, num_kv_heads)
  if method == 'first':
    return grouping.join_heads(heads[:, :, 0])
  merged = heads.astype(np.float32).mean(axis=2).astype(momentum.dtype)
  merged = grouping.join_heads(merged)
  return _zeros(merged) if method == 'random' else merged


def _zeros(x):
  return jnp.zeros_like(x) if isinstance(x, jax.Array) else np.zeros_like(x)


def _shape(x) -> tuple[int, ...]:
  return tuple(getattr(x, 'shape', x))
