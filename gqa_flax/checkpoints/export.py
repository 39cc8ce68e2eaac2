"""Writes a checkpoint as transformers' T5, so that any runtime can load it.

transformers has no grouped T5: every query head gets a copy of the key and
value head that it reads. The result computes the same, at multi-head speed.
"""

from collections.abc import Callable, Iterator
import json
import shutil
from typing import Any

from etils import epath
import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors

from gqa_flax.checkpoints import folders
from gqa_flax.checkpoints import huggingface
from gqa_flax.checkpoints import job
from gqa_flax.conversion import grouping
from gqa_flax.errors import UserError
from gqa_flax.model import config as config_lib

_PARAM = 'target/'
_SHARD_BYTES = 2 * 10**9  # Of one file; as much is in memory.


def export(
  source: epath.PathLike,
  directory: epath.PathLike,
  *,
  dtype: str | None = None,
  progress: Callable[[int], Any] = lambda nbytes: None,
) -> dict[str, Any]:
  """Writes config.json and safetensors into a new folder.

  Args:
    source: a checkpoint of any format that `readers` knows.
    directory: made; it must not exist, or be empty.
    dtype: of all tensors, one of job.DTYPES; None keeps theirs.
    progress: called with the number of bytes just read.

  Returns:
    The record that `gqa-flax export --json` prints.

  Raises:
    UserError: bad input, or a folder in use; nothing is left then.
  """
  settings = job.Settings(num_kv_heads=1, optimizer='drop', dtype=dtype)
  work = job.prepare(source, settings)
  directory = folders.absolute(directory)
  if '://' in str(directory):
    raise UserError(f'{directory}: a local folder is expected.')
  if directory.exists() and (
    not directory.is_dir() or any(directory.iterdir())
  ):
    raise UserError(f'{directory}: exists; give a new or an empty folder.')
  temporary = directory.with_name(directory.name + '.gqa_flax-tmp')
  if temporary.exists():
    shutil.rmtree(temporary)
  try:
    temporary.mkdir(parents=True)
    written = _write_shards(temporary, _tensors(work, progress))
    config = huggingface.config_json(work.plan.before, written['dtype'])
    (temporary / huggingface.CONFIG).write_text(config)
    if directory.exists():
      directory.rmdir()
    temporary.rename(directory)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  return {
    'source': str(work.reader.path),
    'destination': str(directory),
    'num_heads': work.plan.before.num_heads,
    'num_kv_heads': work.plan.before.num_kv_heads,
    **written,
  }


def repeat_heads(kernel: np.ndarray, config: config_lib.T5Config) -> np.ndarray:
  """[e, k*d] -> [e, h*d]: head n is a copy of K/V head n // (h / k)."""
  groups = config.num_kv_heads
  heads = kernel.reshape(kernel.shape[0], groups, config.head_dim)
  heads = np.repeat(heads, config.num_heads // groups, axis=1)
  return heads.reshape(kernel.shape[0], -1)


def _tensors(work: job.Work, progress) -> Iterator[tuple[str, np.ndarray]]:
  """transformers' names and arrays."""
  config = work.plan.before
  for path, arrays in job.read_units(work):
    x = arrays[_PARAM + path]
    progress(x.nbytes)
    if grouping.is_kv_kernel(path):
      x = repeat_heads(x, config)
    if work.settings.dtype:
      x = x.astype(jnp.dtype(work.settings.dtype))
    name, transposed = huggingface.name_of(path)
    yield name, np.ascontiguousarray(x.T if transposed else x)


def _write_shards(folder: epath.Path, tensors) -> dict[str, Any]:
  """Files of at most _SHARD_BYTES (a larger tensor has one to itself)."""
  shards, part, size, dtypes = [], {}, 0, set()

  def close():
    path = folder / f'{len(shards)}.part'
    safetensors.save_file(part, str(path), metadata={'format': 'pt'})
    shards.append((path, list(part)))

  total = 0
  for name, x in tensors:
    if part and size + x.nbytes > _SHARD_BYTES:
      close()
      part, size = {}, 0
    part[name] = x
    size += x.nbytes
    total += x.nbytes
    dtypes.add(x.dtype.name)
  close()
  _name_shards(folder, shards, total)
  return {
    'dtype': dtypes.pop() if len(dtypes) == 1 else 'float32',
    'files': len(shards),
    'bytes_written': total,
  }


def _name_shards(folder: epath.Path, shards, total: int):
  """transformers' names of files, and their index where there are several."""
  if len(shards) == 1:
    shards[0][0].rename(folder / huggingface.SINGLE)
    return
  weight_map = {}
  for i, (path, names) in enumerate(shards, 1):
    file = f'model-{i:05d}-of-{len(shards):05d}.safetensors'
    path.rename(folder / file)
    weight_map |= dict.fromkeys(names, file)
  index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
  (folder / huggingface.INDEX).write_text(json.dumps(index, indent=1))
