"""Checks a converted checkpoint against its source.

The manifest says what was done; here it is done again. Untouched tensors (and
those merely cast) must agree byte for byte, converted ones within rounding:
the order of a sum may differ between machines.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from etils import epath
import jax.numpy as jnp
import numpy as np

from gqa_flax.checkpoints import folders
from gqa_flax.checkpoints import job
from gqa_flax.checkpoints import manifest
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Report:
  """Outcome of a verification.

  Attributes:
    source: the checkpoint read.
    destination: the checkpoint checked.
    kept: number of tensors found equal byte for byte.
    converted: number of tensors found equal within rounding.
    differences: one line for each thing that is wrong; empty if all is well.
  """

  source: str
  destination: str
  kept: int
  converted: int
  differences: tuple[str, ...]


def verify(
  source: epath.PathLike,
  destination: epath.PathLike,
  *,
  progress: Callable[[int], Any] = lambda nbytes: None,
) -> Report:
  """Converts `source` again as the manifest says, and compares.

  Args:
    source: a checkpoint_N folder, or its parent; of the latter, the step that
      the manifest names is taken.
    destination: what `convert` wrote, or its parent (the latest is taken).
    progress: called with the number of bytes of the source just checked.

  Raises:
    UserError: a checkpoint cannot be read, or has no manifest.
  """
  written = t5x_orbax.Reader(destination)
  found = manifest.read(written.path)
  settings = _settings(found)
  step = found['source']['step']
  source = _of_step(source, step)
  # Of a format without steps, the one that it was given.
  given = step if folders.is_huggingface(source) else None
  work = job.prepare(source, settings, given)
  differences = _check_step(work, written)
  before, names, merged_count = {}, {job.STEP}, 0
  for unit, arrays in job.read_units(work):
    before |= {name: manifest.describe(x) for name, x in arrays.items()}
    expected = job.convert_unit(work, unit, arrays)
    merged = unit in work.plan.changes
    differences += _check_unit(expected, written, found, merged)
    names |= set(expected)
    merged_count += len(expected) * merged
    progress(sum(x.nbytes for x in arrays.values()))
  unexpected = sorted(set(written.metadata) - names)
  differences += [f'{name}: unexpected' for name in unexpected]
  before[job.STEP] = manifest.describe(np.asarray(work.step, np.int32))
  if manifest.content_hash(before) != found['source']['sha256']:
    differences.append(
      f'{work.reader.path}: not the source that was converted; its content'
      " has another sha256 than the manifest's"
    )
  return Report(
    source=str(work.reader.path),
    destination=str(written.path),
    kept=len(names) - merged_count,
    converted=merged_count,
    differences=tuple(differences),
  )


def _check_step(work: job.Work, written: t5x_orbax.Reader) -> list[str]:
  if job.STEP not in written.metadata:
    return [f'{job.STEP}: missing']
  step = int(written.read([job.STEP])[job.STEP])
  return (
    [] if step == work.step else [f'{job.STEP}: is {step}, not {work.step}']
  )


def _check_unit(
  expected: dict[str, np.ndarray],
  written: t5x_orbax.Reader,
  found: dict[str, Any],
  merged: bool,
) -> list[str]:
  """What is wrong with a parameter and its slots, a line for each tensor."""
  actual = written.read(name for name in expected if name in written.metadata)
  problems = []
  for name, want in expected.items():
    if name not in actual:
      problem = f'{name}: missing'
    else:
      problem = _compare(name, actual[name], want, merged)
      problem = problem or _compare_hash(name, actual[name], found)
    problems += [problem] if problem else []
  return problems


def _settings(found: dict[str, Any]) -> job.Settings:
  did = found['conversion']
  try:
    return job.Settings(
      num_kv_heads=did['num_kv_heads'],
      method=did['method'],
      optimizer=did['optimizer']['policy'],
      dtype=did['dtype'],
      seed=did['seed'],
    )
  except KeyError as error:
    raise UserError(f'{manifest.NAME}: {error} is missing.') from error


def _of_step(source: epath.PathLike, step: int) -> epath.Path:
  named = folders.absolute(source) / f'checkpoint_{step}'
  return named if named.is_dir() else folders.resolve(source)


def _compare(name: str, actual, want: np.ndarray, merged: bool) -> str | None:
  """What is wrong with a tensor, in one line; None if nothing is."""
  if actual.shape != want.shape or actual.dtype != want.dtype:
    return (
      f'{name}: is {actual.dtype.name}{list(actual.shape)}, must be'
      f' {want.dtype.name}{list(want.shape)}'
    )
  if actual.tobytes() == want.tobytes():
    return None
  if not merged:
    return f'{name}: differs; it must be the same byte for byte'
  # A sum's order may differ: a few units in the last place of the largest.
  a, b = actual.astype(np.float64), want.astype(np.float64)
  allowed = 4 * float(jnp.finfo(want.dtype).eps) * np.abs(b).max()
  worst = np.abs(a - b).max()
  if worst <= allowed:
    return None
  return f'{name}: differs by up to {worst:.3g}; {allowed:.3g} is allowed'


def _compare_hash(name: str, actual: np.ndarray, found) -> str | None:
  entry = found['tensors'].get(name)
  if entry is None:
    return f'{name}: not in the manifest'
  if manifest.after(entry)['sha256'] != manifest.digest(actual):
    return f'{name}: has changed since it was written'
  return None
