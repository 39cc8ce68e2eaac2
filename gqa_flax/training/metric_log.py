"""Metrics of a run, to TensorBoard and to metrics.jsonl."""

from collections.abc import Mapping
import json
import math
import os
import pathlib

import jax
import tensorboardX

FILE_NAME = 'metrics.jsonl'


class MetricLog:
  """Appends scalars by step; a resumed run drops what came after its step."""

  def __init__(self, directory: str | os.PathLike, resume_step: int = 0):
    self._path = pathlib.Path(directory) / FILE_NAME
    self._writer = None
    if jax.process_index():
      return  # The first process speaks for all.
    self._path.parent.mkdir(parents=True, exist_ok=True)
    kept = [r for r in read(directory) if r['step'] <= resume_step]
    temporary = self._path.with_suffix('.tmp')
    temporary.write_text(''.join(json.dumps(r) + '\n' for r in kept))
    temporary.replace(self._path)
    self._writer = tensorboardX.SummaryWriter(
      str(pathlib.Path(directory) / 'tensorboard'),
      purge_step=resume_step + 1,
    )

  def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
    """One record; numbers that are not finite are written as null."""
    if self._writer is None:
      return
    values = {
      name: float(x) if math.isfinite(x) else None for name, x in values.items()
    }
    with self._path.open('a') as f:
      f.write(json.dumps({'step': step, 'split': split} | values) + '\n')
    for name, x in values.items():
      if x is not None:
        self._writer.add_scalar(f'{split}/{name}', x, step)

  def close(self) -> None:
    if self._writer is not None:
      self._writer.close()


def read(directory: str | os.PathLike) -> list[dict]:
  """Records of metrics.jsonl; a last line that a stop cut short is dropped."""
  path = pathlib.Path(directory) / FILE_NAME
  if not path.exists():
    return []
  records = []
  for line in path.read_text().splitlines():
    try:
      records.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return records
