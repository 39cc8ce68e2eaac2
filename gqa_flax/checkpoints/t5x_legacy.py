"""T5X's older checkpoint format: that of all public T5 checkpoints.

    checkpoint_N/checkpoint                 msgpack: version 2 or 3, the step,
                                            small arrays, a spec of the others
    checkpoint_N/target.encoder.../         a zarr folder each, named after the
                                            tensor ('state.param_states...')

Source: t5x/checkpoints.py, `Checkpointer`. It is only read; what is written
has the layout of `t5x_orbax`. An index comes from elsewhere: its paths may not
leave the folder, its shapes must be those of the zarr folders.
"""

from collections.abc import Iterable, Mapping
import math
import re
from typing import Any

from etils import epath
from flax import serialization
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts

from gqa_flax.checkpoints import folders
from gqa_flax.errors import UserError

INDEX = 'checkpoint'
_VERSIONS = (2, 3)
# The widest tensor of T5-XXL has 0.5 GB in float32.
MAX_TENSOR_BYTES = 2**36
# Inline arrays are small; one file that holds all is for tiny test models.
MAX_INDEX_BYTES = 2**31


def is_legacy(path: epath.PathLike) -> bool:
  """Whether a checkpoint_N folder is of this format."""
  return (epath.Path(path) / INDEX).is_file()


class Reader:
  """Reads single tensors of one checkpoint, as `t5x_orbax.Reader` does.

  Attributes:
    path: the checkpoint_N folder.
    metadata: path ('target/encoder/...') -> jax.ShapeDtypeStruct, sorted.
  """

  def __init__(self, path: epath.PathLike):
    """Opens a checkpoint_N folder, or the latest of its parent.

    Raises UserError: not of this format, or an index that is not to be trusted.
    """
    self.path = folders.resolve(path)
    leaves = _read_index(self.path)
    self._inline = {}
    self._specs = {}
    self.metadata = {}
    for name, leaf in sorted(leaves.items()):
      if isinstance(leaf, Mapping):
        shape, dtype = _declared(leaf, f'{self.path}: {name}')
        self._specs[name] = _folder(leaf, f'{self.path}: {name}')
      else:
        leaf = self._inline[name] = np.asarray(leaf)
        shape, dtype = leaf.shape, leaf.dtype
      self.metadata[name] = jax.ShapeDtypeStruct(shape, dtype)

  def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Reads tensors by name, all at a time.

    Raises UserError: a tensor is missing, corrupt, or not as declared.
    """
    names = list(names)
    found = {n: self._inline[n] for n in names if n in self._inline}
    pending = {}
    for name in names:
      if name not in found:
        spec = self._spec(name)
        pending[name] = ts.open(spec, open=True, read=True)
    stores = {name: self._opened(name, f) for name, f in pending.items()}
    reads = {name: store.read() for name, store in stores.items()}
    for name, future in reads.items():
      found[name] = self._result(name, future)
    return {name: found[name] for name in names}

  def _spec(self, name: str) -> dict[str, Any]:
    """tensorstore's, for where the checkpoint lies now."""
    bucket = re.fullmatch(r'gs://([^/]+)/(.*)', str(self.path))
    if bucket:
      path = f'{bucket.group(2)}/{self._specs[name]}/'
      kvstore = {'driver': 'gcs', 'bucket': bucket.group(1), 'path': path}
    else:
      kvstore = {'driver': 'file', 'path': f'{self.path}/{self._specs[name]}/'}
    return {'driver': 'zarr', 'kvstore': kvstore}

  def _opened(self, name: str, future) -> ts.TensorStore:
    store = self._result(name, future)
    want = self.metadata[name]
    have = jax.ShapeDtypeStruct(store.shape, store.dtype.numpy_dtype)
    if (have.shape, have.dtype) != (want.shape, want.dtype):
      raise UserError(
        f'{self.path}: {name} is {_text(have)}, but the index says'
        f' {_text(want)}.'
      )
    return store

  def _result(self, name: str, future):
    try:
      return future.result()
    except Exception as error:
      lines = str(error).strip().splitlines() or [type(error).__name__]
      raise UserError(
        f'{self.path}: the checkpoint cannot be read: {name}: {lines[0][:500]}'
      ) from error


def _read_index(path: epath.Path) -> dict[str, Any]:
  """Name -> array, or mapping with a spec."""
  file = path / INDEX
  if not file.is_file():
    raise UserError(f'{path}: no T5X checkpoint; a file {INDEX!r} is expected.')
  size = file.stat().length
  if size > MAX_INDEX_BYTES:
    raise UserError(
      f'{file}: has {size:,} bytes; an index of more than {MAX_INDEX_BYTES:,}'
      ' is not read.'
    )
  try:
    content = serialization.msgpack_restore(file.read_bytes())
  except Exception as error:  # msgpack has no common class of errors
    raise UserError(f'{file}: not an index of T5X: {error}') from error
  version = content.get('version') if isinstance(content, Mapping) else None
  if version not in _VERSIONS or 'optimizer' not in content:
    raise UserError(
      f'{file}: a checkpoint of T5X of version'
      f' {" or ".join(map(str, _VERSIONS))} is expected, not {version!r}.'
    )
  flat = traverse_util.flatten_dict(
    content['optimizer'], is_leaf=lambda _, x: 'driver' in x or 'kvstore' in x
  )
  return {'/'.join(map(str, keys)): leaf for keys, leaf in flat.items()}


def _declared(leaf: Mapping[str, Any], where: str) -> tuple[tuple, Any]:
  """(shape, dtype) of a spec; UserError if it is none, or too large."""
  try:
    shape = tuple(int(n) for n in leaf['metadata']['shape'])
    dtype = jnp.dtype(leaf['dtype'])
  except (KeyError, TypeError, ValueError) as error:
    raise UserError(f'{where}: no valid spec: {error}') from error
  size = dtype.itemsize * math.prod(shape)
  if min(shape, default=0) < 0 or size > MAX_TENSOR_BYTES:
    raise UserError(
      f'{where}: the index declares {size:,} bytes ({list(shape)}); more than'
      f' {MAX_TENSOR_BYTES:,} are not read.'
    )
  return shape, dtype


def _folder(leaf: Mapping[str, Any], where: str) -> str:
  """The name of a tensor's folder: one that lies beside the index."""
  kvstore = leaf.get('kvstore')
  path = kvstore.get('path') if isinstance(kvstore, Mapping) else None
  path = leaf.get('path') if path is None else path  # tensorstore < 0.1.14
  name = str(path).removesuffix('/')
  if not re.fullmatch(r'[\w.\-]+', name) or set(name) <= {'.'}:
    raise UserError(
      f'{where}: its path {path!r} is not the name of a folder beside the'
      ' index.'
    )
  return name


def _text(leaf) -> str:
  return f'{leaf.dtype.name} {list(leaf.shape)}'
