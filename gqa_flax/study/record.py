"""JSON records: one a stage, and bundles of them.

    stage, kind, what    which stage, and a line on what it does
    key                  hash of all that decides the result
    inputs               parameters, corpus, checkpoint, stages needed
    result               what was found
    outputs              files and folders it left, relative to the output
    seconds, attempts    of the last attempt; how often it was begun
    peak_memory_bytes    of the process until then
    preset, device, versions, finished

A record is written under a temporary name and renamed: it is there only if its
stage is complete. Tables, plots and the report are made from records alone.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import json
import os
import pathlib
from typing import Any

from gqa_flax.errors import UserError

FORMAT = 1
COMMITTED = pathlib.Path(__file__).resolve().parent / 'records'

Record = dict[str, Any]


def write_json(path: os.PathLike | str, value: Any):
  """Writes JSON so that the file is whole or not there."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(path.name + '.tmp')
  with temporary.open('w', encoding='utf-8') as f:
    json.dump(value, f, indent=1, sort_keys=True, ensure_ascii=False)
    f.write('\n')
    f.flush()
    os.fsync(f.fileno())
  temporary.replace(path)


def read_json(path: os.PathLike | str) -> Any | None:
  """What was written; None if there is no such file.

  Raises UserError if it is not JSON.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return None
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise UserError(
      f'{path}: not JSON ({error}); remove it, and its stage runs again.'
    ) from error


@dataclasses.dataclass(frozen=True)
class Run:
  """The records of one run of a preset, as they lie in a folder or a file.

  Attributes:
    name: what tables call it.
    records: in the order of the stages.
  """

  name: str
  records: tuple[Record, ...]

  def of_kind(self, kind: str) -> Iterator[Record]:
    return (r for r in self.records if r['kind'] == kind)

  def result(self, kind: str) -> Any | None:
    """Of the only stage of its kind; None if it was not run."""
    found = next(self.of_kind(kind), None)
    return None if found is None else found['result']

  @property
  def first(self) -> Record | None:
    return self.records[0] if self.records else None

  @property
  def seconds(self) -> float:
    """Of all stages together."""
    return sum(r['seconds'] for r in self.records)

  def curve(self, method: str | None, num_kv_heads: int) -> list[dict]:
    """Held-out loss by alpha; empty where not run."""
    for record in self.of_kind('uptrain'):
      result = record['result']
      if (result['method'], result['num_kv_heads']) == (method, num_kv_heads):
        return result['curve']
    return []

  def curves(self) -> Iterator[tuple[str | None, int, list[dict]]]:
    """(method, num_kv_heads, curve) of all that was uptrained."""
    for record in self.of_kind('uptrain'):
      result = record['result']
      yield result['method'], result['num_kv_heads'], result['curve']

  @property
  def losses_only(self) -> bool:
    """Whether held-out losses are all there is: preset conversion's runs."""
    kinds = {record['kind'] for record in self.records}
    return 'uptrain' in kinds and not kinds & {'time', 'evaluate', 'compare'}

  def times(self, index: int = 0) -> dict[int, dict] | None:
    """num_kv_heads -> timing summary at the index-th shape."""
    result = self.result('time')
    if result is None or index >= len(result['shapes']):
      return None
    models = result['shapes'][index]['models']
    return {int(g): measured for g, measured in models.items()}

  def system(
    self, method: str | None, num_kv_heads: int, alpha: float | None = None
  ) -> dict | None:
    """Scores of a fine-tuned system, at the last alpha unless one is given."""
    result = self.result('compare')
    found = [
      s
      for s in (result or {'systems': ()})['systems']
      if (s['method'], s['num_kv_heads']) == (method, num_kv_heads)
      and alpha in (None, s['alpha'])
    ]
    return max(found, key=lambda s: s['alpha'], default=None)

  def difference(self, system: str, reference: str) -> dict | None:
    """Paired differences of two systems by name, metric by metric."""
    for found in (self.result('compare') or {'differences': ()})['differences']:
      if (found['system'], found['reference']) == (system, reference):
        return found['metrics']
    return None

  @property
  def num_heads(self) -> int | None:
    """G of the control; None if nothing says."""
    for record in self.records:
      heads = record['inputs'].get('num_heads')
      if heads:
        return heads
    return None


def write_bundle(path: os.PathLike | str, name: str, records: Sequence[Record]):
  """All records of a run in one file."""
  write_json(path, {'format': FORMAT, 'name': name, 'records': list(records)})


def read_bundle(path: os.PathLike | str) -> Run:
  """A file of `write_bundle`."""
  content = read_json(path)
  if not isinstance(content, Mapping) or content.get('format') != FORMAT:
    raise UserError(f'{path}: not a bundle of records of format {FORMAT}.')
  return Run(content['name'], tuple(content['records']))


def committed() -> list[Run]:
  """Runs whose records come with the package, by file name."""
  return [read_bundle(path) for path in sorted(COMMITTED.glob('*.json'))]
