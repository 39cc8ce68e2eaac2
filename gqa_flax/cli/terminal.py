"""What commands print: records, sizes, progress bars."""

import json
import os
from typing import Any


def bytes_bar(total: int, what: str):
  """A tqdm bar in bytes on standard error; none where that is no terminal."""
  import tqdm

  return tqdm.tqdm(
    total=total, desc=what, unit='B', unit_scale=True, disable=None
  )


def print_record(record: dict[str, Any]):
  """One JSON object on standard output."""
  print(json.dumps(record, indent=2, sort_keys=True))


def size(nbytes: int) -> str:
  """Bytes with a decimal unit: 999 B, 1.2 kB, 11.4 GB."""
  number = float(nbytes)
  for unit in ('B', 'kB', 'MB', 'GB'):
    if number < 1000:
      return f'{number:.0f} {unit}' if unit == 'B' else f'{number:.1f} {unit}'
    number /= 1000
  return f'{number:.1f} TB'


def use_cpu_only():
  """For commands that only move weights: leaves accelerators to others.

  Call before jax is imported.
  """
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
