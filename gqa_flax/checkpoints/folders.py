"""Folders of checkpoints: which are there, the latest, and what was left over.

A folder holds checkpoint_N for steps N. What an interrupted save leaves has
other names (below), is never listed, and goes with the next save.
"""

from collections.abc import Callable, Sequence
import json
import pathlib
import re
import threading
import time
from typing import Any

from etils import epath
import jax
import orbax.checkpoint as ocp

from gqa_flax import paths
from gqa_flax.errors import UserError

STATE_ITEM = 'state'
# Of a folder of transformers: configuration, weights, index, and pickles.
HUGGINGFACE_FILES = (
  'config.json',
  'model.safetensors',
  'model.safetensors.index.json',
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
)
_STEP_FOLDER = re.compile(r'checkpoint_(\d+)')
# Orbax writes in 'checkpoint_N.orbax-checkpoint-tmp', then renames.
_TEMPORARY = re.compile(r'checkpoint_\d+\.orbax-checkpoint-tmp.*')
# Where a checkpoint that replaces another is completed before the exchange.
_STAGING = '.gqa_flax_staging'
_REPLACED = 'replaced'


def steps(directory: epath.PathLike) -> list[int]:
  """Steps of the complete checkpoints in a folder, ascending."""
  directory = absolute(directory)
  if not directory.is_dir():
    return []
  found = []
  for entry in directory.iterdir():
    match = _STEP_FOLDER.fullmatch(entry.name)
    if match and entry.is_dir() and ocp.utils.is_checkpoint_finalized(entry):
      found.append(int(match.group(1)))
  return sorted(found)


def latest(directory: epath.PathLike) -> epath.Path:
  """The checkpoint of the highest step. Raises UserError if there is none."""
  found = steps(directory)
  if not found:
    raise UserError(
      f'{absolute(directory)}: no checkpoint here; a folder checkpoint_N,'
      ' or one that holds such folders, is expected.'
    )
  return absolute(directory) / f'checkpoint_{found[-1]}'


def resolve(path: epath.PathLike) -> epath.Path:
  """A checkpoint_N folder as it is; of its parent, the latest one in it.

  A folder of transformers is a checkpoint as it is.

  'mini' is the shipped checkpoint, unless there is a path of that name.
  Raises UserError if there is nothing, or no checkpoint.
  """
  if str(path) == 'mini' and not epath.Path(path).exists():
    path = paths.mini_checkpoint_dir()
  path = absolute(path)
  if not path.exists():
    raise UserError(f'{path}: no such checkpoint.')
  if is_step(path) or (path / STATE_ITEM).is_dir() or is_huggingface(path):
    return path
  return latest(path)


def is_huggingface(path: epath.PathLike) -> bool:
  """Whether a folder looks like one that transformers has written."""
  path = epath.Path(path)
  return any((path / name).is_file() for name in HUGGINGFACE_FILES)


def is_step(path: epath.PathLike) -> bool:
  """Whether a path is named as a checkpoint is: checkpoint_N."""
  return _STEP_FOLDER.fullmatch(epath.Path(path).name) is not None


def prune(
  directory: epath.PathLike, keep: int, protect: Sequence[int] = ()
) -> list[int]:
  """Removes all but the `keep` latest checkpoints; returns the steps removed.

  Steps in `protect` (the best one, say) are never removed, and do not count.
  """
  if keep < 1:
    raise ValueError(f'keep ({keep}) must be at least 1.')
  candidates = [step for step in steps(directory) if step not in protect]
  removed = candidates[:-keep]
  if jax.process_index() == 0:
    for step in removed:
      _remove(absolute(directory) / f'checkpoint_{step}')
  return removed


def read_json(path: epath.PathLike, name: str) -> dict[str, Any] | None:
  """A JSON file beside the state of a checkpoint; None if it is not there."""
  file = resolve(path) / name
  if not file.exists():
    return None
  try:
    found = json.loads(file.read_text())
  except ValueError as error:
    raise UserError(f'{file}: not JSON: {error}') from error
  if not isinstance(found, dict):
    raise UserError(f'{file}: not a JSON object.')
  return found


def absolute(path: epath.PathLike) -> epath.Path:
  """The path made absolute, which Orbax asks for; gs:// stays as it is."""
  path = epath.Path(path).expanduser()
  return path if '://' in str(path) else path.resolve()


def is_foreign(directory: epath.PathLike) -> bool:
  """Whether a folder holds things, but no checkpoint nor what a save leaves."""
  directory = absolute(directory)
  if not directory.exists():
    return False
  if not directory.is_dir():
    return True
  names = [entry.name for entry in directory.iterdir()]
  ours = [n for n in names if n.startswith('checkpoint_') or n == _STAGING]
  return bool(names) and not ours


def staged(final: epath.Path) -> epath.Path:
  """Where the checkpoint that shall replace `final` is completed."""
  return final.parent / _STAGING / final.name


def exchange(final: epath.Path):
  """Puts the staged checkpoint in the place of `final`, and removes that.

  A kill between the two renames leaves the old one aside, whole: `prepare`,
  which every save begins with, puts it back.
  """
  if jax.process_index() == 0:
    replaced = final.parent / _STAGING / _REPLACED
    replaced.mkdir(parents=True, exist_ok=True)
    final.rename(replaced / final.name)
    staged(final).rename(final)
    (final.parent / _STAGING).rmtree()
  ocp.multihost.sync_global_processes('gqa_flax:checkpoint_exchanged')


def prepare(directory: epath.Path) -> bool:
  """Makes the folder, or removes what an interrupted save left in it.

  An old checkpoint that such a save had set aside is put back. Returns whether
  the folder is new.
  """
  if jax.process_index() != 0:
    return False
  created = not directory.exists()
  directory.mkdir(parents=True, exist_ok=True)
  _clean(directory)
  return created


def withdraw(directory: epath.Path, created: bool):
  """After a failed save: leaves the folder as it was before `prepare`.

  tensorstore's writers outlive the error of one of them and make their folders
  anew, so it is cleaned until all threads rest and nothing comes back (10
  seconds at most).
  """
  if jax.process_count() > 1:
    return  # The other processes may still be writing; the next save cleans.

  def stirred() -> bool:
    try:
      return _clean(directory)
    except OSError:  # A file appeared in a folder just emptied.
      return True

  let_threads_rest(10.0, stirred)
  if created and not any(directory.iterdir()):
    directory.rmdir()


def let_threads_rest(
  seconds: float, stirred: Callable[[], bool] = lambda: False
):
  """Waits until no other thread runs, and `stirred` is False, five times over.

  Gives up after `seconds`: a program may have threads that never rest.
  """
  deadline = time.monotonic() + seconds
  calm = 0
  while calm < 5 and time.monotonic() < deadline:
    calm = 0 if stirred() or _other_threads_run() else calm + 1
    time.sleep(0.02)


def _other_threads_run() -> bool:
  """Whether a thread of this process runs, or waits for a CPU or a disk.

  False where the system has no /proc.
  """
  for task in pathlib.Path('/proc/self/task').glob('*'):
    if int(task.name) == threading.get_native_id():
      continue
    try:
      state = (task / 'stat').read_text().rpartition(')')[2].split()[0]
    except OSError:
      continue  # It has ended.
    if state in 'RD':
      return True
  return False


def _clean(directory: epath.Path) -> bool:
  """Returns whether there was anything to clean."""
  replaced = directory / _STAGING / _REPLACED
  if replaced.is_dir():
    for old in replaced.iterdir():
      if not (directory / old.name).exists():
        old.rename(directory / old.name)
  leftovers = [
    entry
    for entry in directory.iterdir()
    if entry.name == _STAGING or _TEMPORARY.fullmatch(entry.name)
  ]
  for entry in leftovers:
    entry.rmtree()
  return bool(leftovers)


def _remove(checkpoint: epath.Path):
  """Removes a checkpoint so that no part of it ever passes for the whole."""
  if '://' in str(checkpoint):  # A rename is a copy there.
    (checkpoint / 'commit_success.txt').unlink(missing_ok=True)
    checkpoint.rmtree()
    return
  doomed = checkpoint.parent / f'{checkpoint.name}.orbax-checkpoint-tmp'
  if doomed.exists():
    doomed.rmtree()
  checkpoint.rename(doomed)
  doomed.rmtree()
