"""The one checkpoint layout that we write: T5X's, through Orbax.

    DIRECTORY/checkpoint_N/_CHECKPOINT_METADATA      Orbax's
    DIRECTORY/checkpoint_N/state/...                 OCDBT holding zarr2
    DIRECTORY/checkpoint_N/gqa_flax.json             optional sidecar, ours

A state is the nested dict that T5X's train state has:

    target                      parameters
    state/step                  int32 scalar
    state/param_states/.../{v_row, v_col, v, m}      Adafactor's slots

A checkpoint stands under its final name only once it is complete. Folders may
be local or on Cloud Storage (gs://). T5X restores what is written here, and
the reverse (t5x/checkpoints.py, OrbaxCheckpointManagerInterface).
"""

from collections.abc import Iterable, Mapping, Sequence
import contextlib
import gc
import json
import logging
import sys
import traceback
from typing import Any

from etils import epath
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_args

from gqa_flax.checkpoints import folders
from gqa_flax.conversion import plan
from gqa_flax.errors import UserError

STATE_ITEM = folders.STATE_ITEM
SIDECAR_NAME = 'gqa_flax.json'

steps = folders.steps
latest = folders.latest
resolve = folders.resolve
prune = folders.prune
read_json = folders.read_json


class _HandlerWithFiles(ocp.CompositeCheckpointHandler):
  """Writes small text files beside the items, before the atomic rename."""

  def __init__(self, files: Mapping[str, str]):
    super().__init__()
    self._files = dict(files)

  def finalize(self, directory: epath.Path):
    super().finalize(directory)  # On the primary process only.
    for name, text in self._files.items():
      (directory / name).write_text(text)


@checkpoint_args.register_with_handler(
  _HandlerWithFiles, for_save=True, for_restore=True
)
class _CompositeArgs(ocp.args.Composite):
  """Composite arguments, registered for the handler above."""


def save(
  directory: epath.PathLike,
  state: Mapping[str, Any],
  *,
  overwrite: bool = False,
  sidecar: Mapping[str, Any] | None = None,
  files: Mapping[str, str] | None = None,
) -> epath.Path:
  """Writes `directory/checkpoint_N`, N being state['state']['step'].

  Every process calls it; arrays may be numpy, or jax arrays sharded over
  processes. Dtypes are kept as given. Folders that an interrupted save left
  behind are removed first: two jobs must not write to one folder.

  Args:
    directory: folder of checkpoints; made if missing.
    state: {'target': ..., 'state': {'step': ..., 'param_states': ...}}.
    overwrite: replace an existing checkpoint_N; the old one is removed only
      when the new one is complete.
    sidecar: a JSON-able dict, written to checkpoint_N/gqa_flax.json.
    files: further small text files beside the state, name to text.

  Returns:
    The path of checkpoint_N.

  Raises:
    UserError: the checkpoint exists and overwrite is False, or the disk is
      full or may not be written. Nothing is left behind then.
  """
  directory = folders.absolute(directory)
  final = directory / f'checkpoint_{int(_local(state["state"]["step"]))}'
  files = dict(files or {})
  if sidecar is not None:
    files[SIDECAR_NAME] = json.dumps(sidecar, indent=2, sort_keys=True) + '\n'
  try:
    created = folders.prepare(directory)
    exists = final.exists()
    if exists and not overwrite:
      raise UserError(f'{final}: the checkpoint exists already.')
    with _quiet():
      try:
        _write(folders.staged(final) if exists else final, state, files)
        if exists:
          folders.exchange(final)
      except BaseException:
        folders.withdraw(directory, created)
        raise
  except Exception as error:
    _raise_if_unwritable(final, error)
    raise
  return final


class Reader:
  """Reads single tensors of one checkpoint.

  Attributes:
    path: the checkpoint_N folder.
    metadata: path ('target/encoder/...') -> jax.ShapeDtypeStruct, sorted.
  """

  def __init__(self, path: epath.PathLike):
    """Opens a checkpoint_N folder, or the latest of its parent.

    Raises UserError: missing, of another format, corrupt.
    """
    self.path = resolve(path)
    if not (self.path / STATE_ITEM).is_dir():
      legacy = (self.path / 'checkpoint').exists()
      raise UserError(
        f"{self.path}: a checkpoint of T5X's older format; `gqa-flax convert`"
        ' makes one that can be trained and run out of it.'
        if legacy
        else f'{self.path}: no Orbax checkpoint; a folder {STATE_ITEM!r} is'
        ' expected in it.'
      )
    with _reading(self.path):
      tree = ocp.PyTreeCheckpointHandler().metadata(self.path / STATE_ITEM).tree
      flat = traverse_util.flatten_dict(tree, sep='/')
      self.metadata = {
        name: jax.ShapeDtypeStruct(tuple(leaf.shape or ()), leaf.dtype)
        for name, leaf in sorted(flat.items())
      }

  def read(
    self,
    names: Iterable[str],
    *,
    dtype: Any = None,
    shardings: Mapping[str, Any] | None = None,
  ) -> dict[str, Any]:
    """Reads tensors by name; dtype and shardings (by name) as in `restore`."""
    shardings = shardings or {}
    structure, arguments = {}, {}
    for name in names:
      leaf = self.metadata[name]
      key = tuple(name.split('/'))
      structure[key] = leaf
      arguments[key] = _restore_args(leaf, dtype, shardings.get(name))
    with _reading(self.path):
      with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.restore(
          self.path / STATE_ITEM,
          args=ocp.args.PyTreeRestore(
            item=traverse_util.unflatten_dict(structure),
            restore_args=traverse_util.unflatten_dict(arguments),
            partial_restore=True,
          ),
        )
    flat = traverse_util.flatten_dict(tree, sep='/')
    return {name: _as_array(x) for name, x in flat.items()}


def restore(
  path: epath.PathLike,
  *,
  dtype: Any = jnp.float32,
  shardings: Any = None,
  only: Sequence[str] = ('target', 'state'),
) -> dict[str, Any]:
  """Reads a checkpoint as a nested dict of arrays.

  Args:
    path: a checkpoint_N folder, or its parent (the latest is taken).
    dtype: floating leaves of fewer bits are cast up to it (bfloat16 weights to
      float32); None keeps the stored dtypes. Integers are kept.
    shardings: a tree like the state of jax.sharding.Sharding or None, or one
      Sharding for all leaves. Leaves without one are numpy arrays.
    only: the top-level parts to read; ('target',) leaves the optimizer out.

  Raises:
    UserError: missing, incomplete, truncated or corrupt.
  """
  reader = Reader(path)
  names = [n for n in reader.metadata if n.split('/')[0] in only]
  missing = [p for p in only if not any(n.startswith(p + '/') for n in names)]
  if missing:
    raise UserError(
      f'{reader.path}: the checkpoint has no {", ".join(missing)}.'
    )
  flat = reader.read(
    names, dtype=dtype, shardings=_flat_shardings(shardings, names)
  )
  return traverse_util.unflatten_dict(flat, sep='/')


def read_metadata(path: epath.PathLike) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and dtypes of a checkpoint, by path ('target/encoder/...').

  Reads no array. Raises UserError: missing, of another format, corrupt.
  """
  return Reader(path).metadata


def read_step(path: epath.PathLike) -> int:
  """The step a checkpoint was written at, whatever its folder is named."""
  return int(Reader(path).read(['state/step'])['state/step'])


def read_sidecar(path: epath.PathLike) -> dict[str, Any] | None:
  """What `save` was given as sidecar; None if there is none."""
  return read_json(path, SIDECAR_NAME)


def validate(
  actual: Mapping[str, Any],
  expected: Mapping[str, Any],
  *,
  where: str = 'The checkpoint',
):
  """Compares shapes by path; anything with a `shape`, or a tuple, will do.

  Raises:
    UserError: lists every missing, unexpected and misshapen tensor.
  """
  plan.check_shapes(actual, expected, where=where)


def _write(path: epath.Path, state: Mapping[str, Any], files):
  state = jax.tree.map(_as_array, dict(state))
  if not isinstance(state['state']['step'], jax.Array):
    state['state'] |= {'step': state['state']['step'].astype(np.int32)}
  with ocp.Checkpointer(_HandlerWithFiles(files)) as checkpointer:
    checkpointer.save(
      path, args=_CompositeArgs(**{STATE_ITEM: ocp.args.PyTreeSave(state)})
    )


def _restore_args(leaf, dtype, sharding) -> ocp.RestoreArgs:
  stored = leaf.dtype
  if dtype is not None and jnp.issubdtype(stored, jnp.floating):
    if jnp.finfo(stored).bits < jnp.finfo(dtype).bits:
      stored = dtype
  if sharding is None:
    return ocp.RestoreArgs(restore_type=np.ndarray, dtype=stored)
  return ocp.ArrayRestoreArgs(sharding=sharding, dtype=stored)


def _flat_shardings(shardings, names) -> dict[str, jax.sharding.Sharding]:
  if shardings is None:
    return {}
  if isinstance(shardings, jax.sharding.Sharding):
    return dict.fromkeys(names, shardings)
  return traverse_util.flatten_dict(dict(shardings), sep='/')


def _as_array(x):
  return x if isinstance(x, jax.Array) else np.asarray(x)


def _local(x):
  """A scalar's value, also where it is replicated over processes."""
  return x.addressable_data(0) if isinstance(x, jax.Array) else x


@contextlib.contextmanager
def _quiet():
  """Keeps the storage libraries from printing errors that they also raise.

  Orbax logs an error's traceback; tensorstore's other writers then complain,
  in threads of their own, that Orbax's event loop is gone; and asyncio reports
  the errors of further reads, which nobody awaits, when their tasks are freed.
  """
  loggers = [logging.getLogger(name) for name in ('absl', 'asyncio')]
  levels, hook = [logger.level for logger in loggers], sys.unraisablehook

  def without_closed_loops(unraisable):
    if str(unraisable.exc_value) != 'Event loop is closed':
      hook(unraisable)

  for logger in loggers:
    logger.setLevel(logging.CRITICAL)
  sys.unraisablehook = without_closed_loops
  try:
    yield
  except BaseException as error:
    folders.let_threads_rest(1.0)
    _free_tasks(error)
    raise
  finally:
    for logger, level in zip(loggers, levels):
      logger.setLevel(level)
    sys.unraisablehook = hook


def _free_tasks(error: BaseException | None):
  """Frees the tasks that the frames of an error hold, by clearing them."""
  while error is not None:
    traceback.clear_frames(error.__traceback__)
    error = error.__cause__ or error.__context__
  gc.collect()


@contextlib.contextmanager
def _reading(path: epath.Path):
  """One line for whatever the storage libraries raise on a bad checkpoint."""
  try:
    with _quiet():
      yield
  except Exception as error:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raise UserError(
      f'{path}: the checkpoint cannot be read: {lines[0][:500]}'
    ) from error


_UNWRITABLE = (
  'No space left on device',
  'File too large',
  'Disk quota exceeded',
  'Permission denied',
  'Read-only file system',
  'Not a directory',
  'File exists',
)


def _raise_if_unwritable(path: epath.Path, error: Exception):
  """Turns an error of the file system into a UserError, whoever raised it.

  tensorstore reports errno's text inside a ValueError.
  """
  if not isinstance(error, UserError):
    for sign in _UNWRITABLE:
      if sign in str(error):
        raise UserError(f'{path}: cannot be written: {sign}.') from error
