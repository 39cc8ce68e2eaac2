"""A conversion of one checkpoint, taken apart.

One parameter with its optimizer slots is the unit of work: converting streams
units, verification recomputes them, and a reader of any format can feed them.
"""

from collections.abc import Iterator
import dataclasses

from etils import epath
import jax.numpy as jnp
import numpy as np

from gqa_flax.checkpoints import readers
from gqa_flax.conversion import grouping
from gqa_flax.conversion import methods
from gqa_flax.conversion import plan as plan_lib
from gqa_flax.conversion import slots
from gqa_flax.errors import UserError

STEP = 'state/step'
DTYPES = ('float32', 'bfloat16')
_PARAM = 'target/'
_SLOT = 'state/param_states/'
_READ_AT_ONCE = 2**26  # Bytes; one read of many small tensors is faster.


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is asked for; recorded in the manifest.

  Attributes:
    num_kv_heads: G.
    method: one of methods.METHODS.
    optimizer: one of slots.POLICIES.
    dtype: of all parameters in the result; None keeps theirs, as slots do.
    seed: of the method 'random'.
  """

  num_kv_heads: int
  method: str = 'mean'
  optimizer: str = 'pool'
  dtype: str | None = None
  seed: int = 0

  def __post_init__(self):
    methods.check_method(self.method)
    slots.check_policy(self.optimizer)
    if self.dtype is not None and self.dtype not in DTYPES:
      raise UserError(
        f'dtype ({self.dtype!r}) must be one of {", ".join(DTYPES)}.'
      )


@dataclasses.dataclass(frozen=True)
class Work:
  """What a conversion does to one source; knows shapes, holds no tensor.

  Attributes:
    reader: of the source.
    settings: what is asked for.
    plan: the model before and after.
    step: of the source.
    has_slots: whether the source holds an optimizer state.
  """

  reader: readers.Reader
  settings: Settings
  plan: plan_lib.Plan
  step: int
  has_slots: bool

  @property
  def keeps_slots(self) -> bool:
    """Whether the result holds an optimizer state."""
    return self.has_slots and self.settings.optimizer != 'drop'

  def names(self, path: str) -> list[str]:
    """The tensors to be read for a parameter: itself and its slots."""
    found = [_PARAM + path]
    if self.keeps_slots:
      found += [f'{_SLOT}{path}/{leaf}' for leaf in slots.LEAVES]
    return found

  def nbytes(self, path: str) -> int:
    leaves = (self.reader.metadata[name] for name in self.names(path))
    return sum(x.dtype.itemsize * int(np.prod(x.shape)) for x in leaves)

  def units(self) -> list[str]:
    """The parameters' paths."""
    return sorted(plan_lib.parameter_shapes(self.plan.before))


def prepare(
  source: epath.PathLike, settings: Settings, step: int | None = None
) -> Work:
  """Checks a source against what is asked for, before any tensor is read.

  Args:
    source: a checkpoint of any format that `readers` knows.
    settings: what is asked for.
    step: see `readers.open_checkpoint`.

  Raises:
    UserError: no checkpoint; not T5's (all that is amiss is listed); heads that
      do not divide.
  """
  reader = readers.open_checkpoint(source, step)
  params, moments, others = {}, {}, []
  for name, leaf in reader.metadata.items():
    if name.startswith(_PARAM):
      params[name.removeprefix(_PARAM)] = leaf
    elif name.startswith(_SLOT):
      moments[name.removeprefix(_SLOT)] = leaf
    elif name != STEP:
      others.append(name)
  problems = [f'unexpected {name}' for name in others]
  if STEP not in reader.metadata:
    problems.append(f'missing {STEP}')
  if problems:
    raise UserError(f'{reader.path}: ' + '; '.join(problems))
  try:
    plan = plan_lib.plan(params, settings.num_kv_heads)
    if moments and settings.optimizer != 'drop':
      slots.validate_slots(moments, params)
  except UserError as error:
    raise UserError(f'{reader.path}: {error}') from error
  step = int(reader.read([STEP])[STEP])
  return Work(reader, settings, plan, step, bool(moments))


def read_units(work: Work) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
  """Yields (parameter, its tensors by name), reading 64 MiB at a time."""
  batch, size = [], 0
  for unit in work.units():
    batch.append(unit)
    size += work.nbytes(unit)
    if size >= _READ_AT_ONCE:
      yield from _read_batch(work, batch)
      batch, size = [], 0
  if batch:
    yield from _read_batch(work, batch)


def convert_unit(
  work: Work, path: str, arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """One parameter and its slots, converted; names as in the checkpoint.

  Tensors that do not change are returned as they are.
  """
  settings, plan = work.settings, work.plan
  param = arrays[_PARAM + path]
  shape = param.shape
  heads = dict(
    num_kv_heads_before=plan.before.num_kv_heads,
    num_kv_heads=settings.num_kv_heads,
    method=settings.method,
  )
  dtype = jnp.dtype(settings.dtype or param.dtype)
  if dtype.itemsize > param.dtype.itemsize:
    param = param.astype(dtype)  # Before pooling, which rounds to its dtype.
  merges = grouping.is_kv_kernel(path)
  if merges:
    param = methods.convert_kernel(
      param, path=path, seed=settings.seed, **heads
    )
  result = {_PARAM + path: param.astype(dtype, copy=False)}
  if not work.keeps_slots:
    return result
  slot = {leaf: arrays[f'{_SLOT}{path}/{leaf}'] for leaf in slots.LEAVES}
  if merges:
    slot = slots.convert_slot(slot, shape, **heads)
  if settings.optimizer == 'reset':
    slot = {leaf: np.zeros_like(x) for leaf, x in slot.items()}
  return result | {f'{_SLOT}{path}/{leaf}': x for leaf, x in slot.items()}


def output_bytes(work: Work) -> int:
  """Bytes of the result, from shapes alone."""
  total = 0
  for unit in work.units():
    leaves = {name: work.reader.metadata[name] for name in work.names(unit)}
    param = leaves.pop(_PARAM + unit)
    dtype = jnp.dtype(work.settings.dtype or param.dtype)
    shape = work.plan.changes.get(unit, (None, param.shape))[1]
    total += dtype.itemsize * int(np.prod(shape))
    if not leaves:
      continue
    slot = {name.rsplit('/', 1)[1]: x for name, x in leaves.items()}
    new = slots.converted_shapes(slot, param.shape, shape)
    total += sum(
      slot[leaf].dtype.itemsize * int(np.prod(new[leaf])) for leaf in new
    )
  return total


def _read_batch(work: Work, batch: list[str]):
  names = [name for unit in batch for name in work.names(unit)]
  arrays = work.reader.read(names)
  for unit in batch:
    yield unit, {name: arrays.pop(name) for name in work.names(unit)}
