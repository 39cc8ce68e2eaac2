"""Users' own data: JSON Lines files (plain or .gz) to a seqio task.

One example a line. Fields, by kind of task:

  text                inputs, targets (nothing is added to the inputs)
  summarization       text, summary
  translation         source, target
  question_answering  question, context, answers (a string or a list)

Summarization and translation accept inputs, targets as well. A file is
checked and copied to TFRecords in the cache on registration, so a bad line
is found before any training, and the tasks shard and shuffle as any other.
"""

from collections.abc import Iterator
import gzip
import hashlib
import json
import os
import pathlib
import shutil
import zlib

import seqio
import tensorflow as tf

from gqa_flax import paths
from gqa_flax.data import corpus
from gqa_flax.data import documentation
from gqa_flax.data import tasks
from gqa_flax.errors import UserError

KINDS = ('text', *tasks.KINDS)

# Field of the file -> field of the record, in the order they are tried.
_PLAIN = {'inputs': 'inputs', 'targets': 'targets'}
_FIELDS = {
  'text': [_PLAIN],
  'summarization': [{'text': 'inputs', 'summary': 'targets'}, _PLAIN],
  'translation': [
    {'source': 'en', 'target': 'de'},
    {'inputs': 'en', 'targets': 'de'},
  ],
  'question_answering': [
    {'question': 'question', 'context': 'context', 'answers': 'answers'}
  ],
}
_NUM_SHARDS = 16


def task_name(
  kind: str,
  train_path: str | os.PathLike | None,
  dev_path: str | os.PathLike | None,
) -> str:
  """A name by which files of other content are another task.

  Raises UserError: a file is missing.
  """
  files = [pathlib.Path(p) for p in (train_path, dev_path) if p is not None]
  digest = hashlib.sha256(''.join(_digest(p, kind) for p in files).encode())
  return f'local_{kind}_{digest.hexdigest()[:8]}'


def register_local_task(
  name: str,
  kind: str,
  train_path: str | os.PathLike | None,
  dev_path: str | os.PathLike | None,
  vocabulary: seqio.Vocabulary,
  prefix: str | None = None,
) -> seqio.Task:
  """Registers a task with splits 'train' and 'validation' from two files.

  Args:
    name: of the task; one registered under it before is replaced.
    kind: one of KINDS: decides fields, prompt and metrics.
    train_path, dev_path: JSONL files; either may be None (no such split).
    vocabulary: of the model.
    prefix: put before the inputs instead of the kind's own (for translation
      into another language, say); not for question answering.

  Raises:
    UserError: a file is missing, empty or not text; a line is not JSON or
      lacks a field (with file and line number); an unknown kind.
  """
  if kind not in KINDS:
    raise UserError(f'No task {kind!r}: use one of {", ".join(KINDS)}.')
  given = {'train': train_path, 'validation': dev_path}
  files = {k: v for k, v in given.items() if v is not None}
  if not files:
    raise UserError('Neither a training nor a development file was given.')
  if prefix is not None and kind == 'question_answering':
    raise UserError('Question answering takes no prefix.')
  record_kind = 'summarization' if kind == 'text' else kind
  patterns, counts = {}, {}
  for split, path in files.items():
    patterns[split], counts[split] = _to_tfrecords(pathlib.Path(path), kind)
  source = seqio.TFExampleDataSource(
    split_to_filepattern=patterns,
    feature_description=documentation.FEATURES[record_kind],
    num_input_examples=counts,
  )
  if prefix is None and kind == 'text':
    prefix = ''
  kwargs = {} if prefix is None else {'prefix': prefix}
  if name in seqio.TaskRegistry.names():
    seqio.TaskRegistry.remove(name)
  return tasks.add_finetuning_task(
    name, record_kind, source, vocabulary, **kwargs
  )


def read_jsonl(path: pathlib.Path, kind: str) -> Iterator[corpus.Record]:
  """Yields the records of a JSONL file. Errors as in register_local_task."""
  number = 0
  try:
    opener = gzip.open if path.suffix == '.gz' else open
    with opener(path, 'rb') as f:
      for number, line in enumerate(f, 1):
        if line.strip():
          yield _parse(line, f'{path}:{number}', kind)
  except FileNotFoundError:
    raise UserError(f'No such file: {path}.') from None
  except (OSError, EOFError, zlib.error) as error:
    raise UserError(
      f'Cannot read {path} after line {number}: {error}'
    ) from error


def _parse(line: bytes, where: str, kind: str) -> corpus.Record:
  try:
    row = json.loads(line)
  except UnicodeDecodeError:
    raise UserError(f'{where}: not UTF-8 text.') from None
  except json.JSONDecodeError as error:
    raise UserError(f'{where}: not JSON ({error.msg}).') from None
  if not isinstance(row, dict):
    raise UserError(f'{where}: not a JSON object.')
  choices = _FIELDS[kind]
  fields = next((c for c in choices if c.keys() <= row.keys()), choices[0])
  missing = [field for field in fields if field not in row]
  if missing:
    raise UserError(
      f'{where}: lacks {", ".join(missing)} (a line of {kind} has '
      f'{" or ".join(", ".join(c) for c in choices)}).'
    )
  return {
    ours: _value(row[field], field, where) for field, ours in fields.items()
  }


def _value(value, field: str, where: str) -> str | list[str]:
  if field == 'answers':
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not value:
      raise UserError(f'{where}: answers must be a string or a list of them.')
    return [_value(v, 'an answer', where) for v in value]
  if not isinstance(value, str):
    raise UserError(f'{where}: {field} must be a string, not {value!r:.40}.')
  if not value.strip():
    raise UserError(f'{where}: {field} is empty.')
  return value


def _to_tfrecords(path: pathlib.Path, kind: str) -> tuple[list[str], int]:
  """Shards of the file's records in the cache, and how many records."""
  folder = paths.cache_dir() / f'local-{_digest(path, kind)[:16]}'
  if not (folder / 'count').is_file():
    _convert(path, kind, folder)
  shards = sorted(str(s) for s in folder.glob('*.tfrecord-*'))
  return shards, int((folder / 'count').read_text())


def _digest(path: pathlib.Path, kind: str) -> str:
  """Of a file's content and of what is read out of it."""
  if not path.is_file():
    raise UserError(f'No such file: {path}.')
  digest = hashlib.sha256(f'{kind} {path.suffix} 1 '.encode())
  with path.open('rb') as f:
    while block := f.read(1 << 20):
      digest.update(block)
  return digest.hexdigest()


def _convert(path: pathlib.Path, kind: str, folder: pathlib.Path):
  temporary = folder.with_name(f'{folder.name}.tmp-{os.getpid()}')
  try:
    temporary.mkdir(parents=True, exist_ok=True)
    count = _write_shards(read_jsonl(path, kind), temporary)
    if count == 0:
      raise UserError(f'{path} is empty.')
    (temporary / 'count').write_text(str(count))
    try:
      temporary.rename(folder)
    except OSError:
      if not (folder / 'count').is_file():  # else another process was first
        raise
  except (OSError, tf.errors.OpError) as error:
    raise UserError(f'Cannot write {folder}: {error}') from error
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _write_shards(records, folder: pathlib.Path) -> int:
  names = [
    str(folder / f'data.tfrecord-{i:05d}-of-{_NUM_SHARDS:05d}')
    for i in range(_NUM_SHARDS)
  ]
  writers = [tf.io.TFRecordWriter(name) for name in names]
  count = 0
  try:
    for count, record in enumerate(records, 1):
      writers[(count - 1) % _NUM_SHARDS].write(corpus.serialize(record))
  finally:
    for writer in writers:
      writer.close()
  return count
