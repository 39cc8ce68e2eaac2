"""Converts a checkpoint on disk into another: reads, converts, writes."""

from collections.abc import Callable
import time
from typing import Any

from etils import epath
from flax import traverse_util
import numpy as np

from gqa_flax.checkpoints import folders
from gqa_flax.checkpoints import job
from gqa_flax.checkpoints import manifest
from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.errors import UserError


def check_destination(
  work: job.Work, directory: epath.PathLike, *, overwrite: bool = False
) -> epath.Path:
  """The path of the checkpoint to be written, if it may be.

  Raises UserError: the folder is not one of checkpoints, or holds this step.
  """
  directory = folders.absolute(directory)
  final = directory / f'checkpoint_{work.step}'
  if (directory / folders.STATE_ITEM).is_dir() or folders.is_step(directory):
    raise UserError(
      f'{directory}: the destination must be a folder that holds checkpoints,'
      ' not a checkpoint.'
    )
  if folders.is_foreign(directory):
    raise UserError(
      f'{directory}: exists and holds no checkpoints; give a new or an empty'
      ' folder.'
    )
  if final == work.reader.path:
    raise UserError(f'{final}: source and destination are the same.')
  if final.exists() and not overwrite:
    raise UserError(f'{final}: exists already; --overwrite replaces it.')
  return final


def convert(
  work: job.Work,
  directory: epath.PathLike,
  *,
  overwrite: bool = False,
  progress: Callable[[int], Any] = lambda nbytes: None,
) -> dict[str, Any]:
  """Converts a checkpoint into `directory/checkpoint_N`, N the source's step.

  Args:
    work: `job.prepare(source, job.Settings(num_kv_heads=G, ...))`.
    directory: the folder that gets checkpoint_N; made if missing.
    overwrite: replace an existing checkpoint_N, once the new one is complete.
    progress: called with the number of bytes just read or written.

  Returns:
    The record that `gqa-flax convert --json` prints.

  Raises:
    UserError: bad input, or a disk that cannot be written; nothing is left.
  """
  start = time.monotonic()
  final = check_destination(work, directory, overwrite=overwrite)
  tensors, before, after = {}, {}, {}
  for unit, arrays in job.read_units(work):
    converted = job.convert_unit(work, unit, arrays)
    before |= {name: manifest.describe(x) for name, x in arrays.items()}
    after |= {name: manifest.describe(x) for name, x in converted.items()}
    tensors |= converted
    progress(sum(x.nbytes for x in arrays.values()))
  tensors[job.STEP] = np.asarray(work.step, np.int32)
  before[job.STEP] = after[job.STEP] = manifest.describe(tensors[job.STEP])
  found = make_manifest(work, before, after)
  path = t5x_orbax.save(
    final.parent,
    traverse_util.unflatten_dict(tensors, sep='/'),
    overwrite=overwrite,
    files={manifest.NAME: manifest.to_json(found)},
  )
  written = sum(x.nbytes for x in tensors.values())
  progress(written)
  return {
    **summary(work, path),
    'source_sha256': found['source']['sha256'],
    'bytes_written': written,
    'seconds': round(time.monotonic() - start, 3),
  }


def make_manifest(work: job.Work, before, after) -> dict[str, Any]:
  """The manifest, from descriptions by path of source and result."""
  settings, plan = work.settings, work.plan
  carried = work.has_slots and settings.optimizer == 'pool'
  optimizer = {
    'policy': settings.optimizer,
    'source_has_slots': work.has_slots,
    # Adafactor's decay at step t is 1 - (t - step_offset + 1)**-0.8: slots
    # that start from zero at step N need N, or they would stay near zero.
    'step_offset_needed': 0 if carried else work.step,
  }
  return {
    'format': manifest.FORMAT,
    'source': {
      'path': str(work.reader.path),
      'step': work.step,
      'sha256': manifest.content_hash(before),
    },
    'conversion': {
      'num_heads': plan.before.num_heads,
      'num_kv_heads_before': plan.before.num_kv_heads,
      'num_kv_heads': settings.num_kv_heads,
      'method': settings.method,
      'grouping': 'contiguous',
      'seed': settings.seed,
      'dtype': settings.dtype,
      'optimizer': optimizer,
    },
    'tensors': manifest.tensor_entries(before, after),
    'lineage': manifest.lineage(work.reader.path),
    'versions': manifest.versions(),
  }


def summary(work: job.Work, final: epath.Path) -> dict[str, Any]:
  """What a conversion does, in numbers known before it is done."""
  settings, plan = work.settings, work.plan
  read = sum(work.nbytes(unit) for unit in work.units())
  return {
    'source': str(work.reader.path),
    'destination': str(final),
    'num_heads': plan.before.num_heads,
    'num_kv_heads_before': plan.before.num_kv_heads,
    'num_kv_heads': settings.num_kv_heads,
    'method': settings.method,
    'optimizer': settings.optimizer if work.has_slots else 'none in source',
    'dtype': settings.dtype,
    'kernels': len(work.units()),
    'kernels_converted': len(plan.changes),
    'bytes_read': read,
    'bytes_to_write': job.output_bytes(work),
  }
