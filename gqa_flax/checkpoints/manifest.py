"""gqa_conversion.json: what a conversion did, beside the state it wrote.

    format       of this file
    source       path, step, and sha256 of the content that was read
    conversion   num_heads, num_kv_heads before and after, method, grouping,
                 seed, dtype (null: kept), optimizer policy and step_offset
    tensors      by path: action, shape, dtype, L2 norm and sha256, `before`
                 and `after`; once where a tensor was kept
    lineage      the conversions that the source itself had been through
    versions     of what did the work

The content hash is that of the lines 'path shape dtype sha256' of all tensors,
sorted: it depends neither on chunks nor on compression nor on the format.
"""

from collections.abc import Iterable, Mapping
import hashlib
from importlib import metadata
import json
import platform
from typing import Any

from etils import epath
import numpy as np

from gqa_flax.checkpoints import folders
from gqa_flax.errors import UserError

NAME = 'gqa_conversion.json'
FORMAT = 1


def describe(x: np.ndarray) -> dict[str, Any]:
  """Shape, dtype, L2 norm (in float64) and sha256 of a tensor's bytes."""
  values = x.astype(np.float64)
  return {
    'shape': list(x.shape),
    'dtype': x.dtype.name,
    'norm': float(np.sqrt(np.sum(np.square(values)))),
    'sha256': digest(x),
  }


def digest(x: np.ndarray) -> str:
  """sha256 of a tensor's bytes, in C order, little-endian."""
  data = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
  return hashlib.sha256(data).hexdigest()


def content_hash(descriptions: Mapping[str, Mapping[str, Any]]) -> str:
  """sha256 of a checkpoint, from its tensors' descriptions by path."""
  total = hashlib.sha256()
  for path, d in sorted(descriptions.items()):
    line = f'{path} {list(d["shape"])} {d["dtype"]} {d["sha256"]}\n'
    total.update(line.encode())
  return total.hexdigest()


def tensor_entries(
  before: Mapping[str, Mapping[str, Any]],
  after: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
  """The `tensors` part, from descriptions by path of source and result."""
  entries = {}
  for path, old in sorted(before.items()):
    new = after[path]
    if old == new:
      entries[path] = {'action': 'kept', **old}
    else:
      same = old['shape'] == new['shape'] and old['dtype'] != new['dtype']
      action = 'cast' if same else 'converted'
      entries[path] = {'action': action, 'before': old, 'after': new}
  return entries


def after(entry: Mapping[str, Any]) -> Mapping[str, Any]:
  """The description of an entry's tensor in the result."""
  return entry if entry['action'] == 'kept' else entry['after']


def versions() -> dict[str, str]:
  """Versions of what takes part in a conversion."""
  names = ('jax', 'jaxlib', 'flax', 'numpy', 'orbax-checkpoint', 'tensorstore')
  found = {'python': platform.python_version()}
  for name in ('gqa_flax', *names):
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      if name == 'gqa_flax':
        import gqa_flax

        found[name] = gqa_flax.__version__
  return found


def lineage(path: epath.PathLike) -> list[dict[str, Any]]:
  """The conversions behind a checkpoint, oldest first.

  Those of its manifest, or of the 'lineage' in its sidecar, where training
  carries them on.
  """
  manifest = read(path, missing_ok=True)
  if manifest is None:
    sidecar = folders.read_json(path, 'gqa_flax.json') or {}
    return list(sidecar.get('lineage', []))
  own = {'source': manifest['source'], 'conversion': manifest['conversion']}
  return [*manifest.get('lineage', []), own]


def step_offset(path: epath.PathLike) -> int:
  """Adafactor's step_offset that training from a checkpoint needs.

  That of its manifest, or of 'step_offset' in its sidecar, where training
  carries it on; 0 where neither has one.
  """
  manifest = read(path, missing_ok=True)
  if manifest is None:
    sidecar = folders.read_json(path, 'gqa_flax.json') or {}
    return int(sidecar.get('step_offset', 0))
  return int(manifest['conversion']['optimizer']['step_offset_needed'])


def to_json(manifest: Mapping[str, Any]) -> str:
  return json.dumps(manifest, indent=1, sort_keys=True) + '\n'


def read(
  path: epath.PathLike, *, missing_ok: bool = False
) -> dict[str, Any] | None:
  """The manifest of a checkpoint.

  Raises UserError if it is missing (unless missing_ok) or not of this format.
  """
  found = folders.read_json(path, NAME)
  where = folders.resolve(path) / NAME
  if found is None:
    if missing_ok:
      return None
    raise UserError(f'{where}: missing; not written by gqa-flax convert.')
  lacking = _lacking(found, ('source', 'conversion', 'tensors'))
  if found.get('format') != FORMAT or lacking:
    raise UserError(
      f'{where}: not a manifest of format {FORMAT} (format:'
      f' {found.get("format")}; missing: {", ".join(lacking) or "nothing"}).'
    )
  return found


def _lacking(found: Any, keys: Iterable[str]) -> list[str]:
  return [key for key in keys if key not in found]
