"""The documentation corpus: built once from what is installed, then cached.

Four sets of records, each split into 'train' and 'validation':

- documents {text}: the docstrings of a file, in order, in pieces of at most
  4,000 characters, for span corruption;
- summarization {inputs, targets}: description and summary line;
- question_answering {question, context, answers}: parameters;
- translation {en, de}: messages.

The split is by file (2 %, by a hash of the file's name in its distribution;
messages, 4 %, by a hash of the English). What all splits share is taken out of
training: a paragraph of a validation file, or a validation message, is in
no training record of any task. Paragraphs are compared by letters and
digits alone; those with fewer than 40 are set phrases and are exempt.

Records are in the order of their hash (so a reader needs no large shuffle
buffer) and depend on the installed versions alone.
"""

import collections
from collections.abc import Iterable, Iterator
import hashlib
import json
import os
import pathlib
import shutil
import textwrap

import tqdm

from gqa_flax import paths
from gqa_flax.data import docstrings
from gqa_flax.data import examples
from gqa_flax.data import messages
from gqa_flax.data import sources
from gqa_flax.errors import UserError

TASKS = ('documents', 'summarization', 'question_answering', 'translation')
SPLITS = ('train', 'validation')
NUM_SHARDS = {'train': 16, 'validation': 1}

_VALIDATION_FILES = 0.02
_VALIDATION_MESSAGES = 0.04
_MAX_DOCUMENT = 4000  # characters
_MIN_DOCUMENT = 40

Record = dict[str, str | list[str]]
Records = dict[tuple[str, str], list[Record]]  # by (task, split)
# (name that decides the split, docstrings)
File = tuple[str, list[docstrings.Docstring]]


def corpus_dir(subset: str = 'full') -> pathlib.Path:
  """Folder of the cached corpus of the installed versions."""
  return paths.cache_dir() / f'corpus-{sources.key(subset)}'


def build(subset: str = 'full') -> pathlib.Path:
  """Returns the corpus's folder, made first if it is not there.

  Args:
    subset: 'full', or 'small', a fixed part that is read in seconds.

  Raises:
    UserError: if a distribution is missing, or the folder cannot be written.
  """
  folder = corpus_dir(subset)
  if (folder / 'corpus.json').is_file():
    return folder
  _remove_abandoned(folder.parent)
  records, read = collect(subset)
  temporary = folder.with_name(f'{folder.name}.tmp-{os.getpid()}')
  try:
    temporary.mkdir(parents=True)
    _write(temporary, records, sources.description(subset) | {'read': read})
    _move(temporary, folder)
  except OSError as error:
    raise UserError(f'Cannot write the corpus: {error}') from error
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  return folder


def _remove_abandoned(cache: pathlib.Path):
  """Removes what builds that were killed have left."""
  for folder in cache.glob('*.tmp-*'):
    process = folder.name.rpartition('-')[2]
    try:
      os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
      shutil.rmtree(folder, ignore_errors=True)
    except OSError:
      pass  # It lives, and is another user's.


def statistics(subset: str = 'full') -> dict:
  """What corpus.json says: versions, counts, hashes. Builds if need be.

  'key' names the folder; 'counts' holds for each task and split the number
  of examples and of characters (all text of the records); 'content_hashes' a
  SHA-256 of each task's records, and 'content_hash' one of all, which say
  whether two corpora are the same where their keys (of versions) differ.
  """
  folder = build(subset)
  described = json.loads((folder / 'corpus.json').read_text())
  hashes = json.dumps(described['content_hashes'], sort_keys=True)
  return described | {
    'key': folder.name.removeprefix('corpus-'),
    'content_hash': hashlib.sha256(hashes.encode()).hexdigest(),
  }


def shard_pattern(folder: pathlib.Path, task: str, split: str) -> str:
  """Glob pattern of the TFRecord files of a task's split."""
  return str(folder / f'{task}-{split}.tfrecord-*')


def read(folder: pathlib.Path, task: str, split: str) -> Iterator[Record]:
  """Records of a built corpus, in the order of the files."""
  import tensorflow as tf

  for path in sorted(folder.glob(f'{task}-{split}.tfrecord-*')):
    for serialized in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
      example = tf.train.Example.FromString(serialized)
      record = {}
      for name, feature in example.features.feature.items():
        values = [v.decode() for v in feature.bytes_list.value]
        record[name] = values if name == 'answers' else values[0]
      yield record


def collect(subset: str = 'full') -> tuple[Records, dict[str, int]]:
  """Reads the installation: all records, and counts of what was read."""
  validation, train, read = _read_files(subset)
  catalogues = sources.catalogue_files(subset)
  pairs = _read_messages(catalogues)
  held_out = {
    examples.paragraph_key(p)
    for _, found in validation
    for _, text in found
    for p in examples.paragraphs(text)
  } - {None}
  pairs['train'] = [
    p for p in pairs['train'] if examples.paragraph_key(p['en']) not in held_out
  ]
  held_out |= {examples.paragraph_key(p['en']) for p in pairs['validation']}
  held_out -= {None}
  records = {}
  for split, files in (('validation', validation), ('train', train)):
    excluded = held_out if split == 'train' else frozenset()
    records['documents', split] = list(_documents(files, excluded))
    records.update(_examples(files, split, excluded))
    records['translation', split] = pairs[split]
  read['catalogues'] = len(catalogues)
  _drop_shared(records)
  return {k: _in_hash_order(v) for k, v in records.items()}, read


def _read_files(subset: str) -> tuple[list[File], list[File], dict[str, int]]:
  """Validation files, training files, counts."""
  files = sources.documentation_files(subset)
  workers = min(2, os.cpu_count() or 1)
  extracted = docstrings.extract_files([f.path for f in files], workers)
  progress = tqdm.tqdm(
    extracted, 'Reading documentation', total=len(files), unit=' files'
  )
  read = {'files': len(files), 'unparsed': 0, 'docstrings': 0, 'characters': 0}
  found = []
  for file, strings in zip(files, progress):
    read['unparsed'] += strings is None
    found.append((file.name, strings or []))
  topics = sources.topics_file()
  if topics is not None:
    text = pathlib.Path(topics.path).read_bytes()
    for topic, body in docstrings.extract_topics(text):
      found.append((f'{topics.name}#{topic}', [('', body)]))
  read['docstrings'] = sum(len(strings) for _, strings in found)
  read['characters'] = sum(len(t) for _, strings in found for _, t in strings)
  validation = [f for f in found if _is_held_out(f[0], _VALIDATION_FILES)]
  names = {name for name, _ in validation}
  return validation, [f for f in found if f[0] not in names], read


def _is_held_out(name: str, share: float) -> bool:
  return int.from_bytes(examples.text_hash(name)) < share * 2**64


def _read_messages(catalogues) -> dict[str, list[Record]]:
  """Pairs by split, each English text once (the first catalogue's)."""
  pairs = {split: [] for split in SPLITS}
  seen = set()
  for file in tqdm.tqdm(catalogues, 'Reading messages', unit=' files'):
    for english, german in messages.read_catalogue(file.path):
      key = examples.normalized(english)
      if key not in seen and messages.is_translation(english, german):
        seen.add(key)
        held_out = _is_held_out(key, _VALIDATION_MESSAGES)
        split = 'validation' if held_out else 'train'
        pairs[split].append({'en': english, 'de': german})
  return pairs


def _documents(files: list[File], excluded: set[bytes]) -> Iterator[Record]:
  """Docstrings of each file together, every paragraph once in the split."""
  seen = set(excluded)
  for _, strings in files:
    kept = []
    for _, text in strings:
      new = [p for p in examples.paragraphs(text) if _is_new(p, seen)]
      new = [p for p in new if examples.is_mostly_letters(p)]
      # Only headings left: what stood below them was all known.
      if any(examples.paragraph_key(p) for p in new):
        kept += new
    for text in _pieces(kept):
      if len(text) >= _MIN_DOCUMENT:
        yield {'text': text}


def _is_new(paragraph: str, seen: set[bytes]) -> bool:
  key = examples.paragraph_key(paragraph)
  if key is None:
    return True
  if key in seen:
    return False
  seen.add(key)
  return True


def _pieces(parts: list[str]) -> Iterator[str]:
  """Joins paragraphs into texts of at most _MAX_DOCUMENT characters.

  A single longer paragraph stays whole.
  """
  piece, size = [], 0
  for part in parts:
    if piece and size + len(part) > _MAX_DOCUMENT:
      yield '\n\n'.join(piece)
      piece, size = [], 0
    piece.append(part)
    size += len(part) + 2
  if piece:
    yield '\n\n'.join(piece)


def _examples(files: list[File], split: str, excluded: set[bytes]) -> Records:
  """Summarization and question answering, each docstring once."""
  summaries, questions = [], []
  seen = set()
  for _, strings in files:
    for name, text in strings:
      keys = {examples.paragraph_key(p) for p in examples.paragraphs(text)}
      if excluded & keys or not _is_new(text, seen):
        continue
      summary = examples.summarization(text)
      if summary and _is_new('body ' + summary['inputs'], seen):
        summaries.append(summary)
      for question in examples.question_answering(name, text):
        if _is_new(_answer_text(question), seen):
          questions.append(question)
  return {
    ('summarization', split): summaries,
    ('question_answering', split): questions,
  }


def _answer_text(question: Record) -> str:
  """A parameter and its description, however many functions share it."""
  parameter = question['question'].split()[3]
  return f'answer {parameter} {question["answers"][0]}'


def _drop_shared(records: Records):
  """Takes out of the tasks what validation and training still share.

  Bodies and contexts that were cut for length end in parts of paragraphs,
  and two functions may describe a parameter in the same words, which
  comparing whole paragraphs of files did not see. Documents stay as they are.
  """
  in_documents = _keys(records['documents', 'train'])
  for task in TASKS[1:]:
    rows = records[task, 'validation']
    rows = [r for r in rows if not in_documents & _keys([r])]
    records[task, 'validation'] = rows
  held_out = set().union(*(_keys(records[t, 'validation']) for t in TASKS))
  for task in TASKS[1:]:
    rows = records[task, 'train']
    records[task, 'train'] = [r for r in rows if not held_out & _keys([r])]


def _keys(records: Iterable[Record]) -> set[bytes]:
  """Keys of all paragraphs of all fields."""
  return {
    examples.paragraph_key(paragraph)
    for record in records
    for text in _texts(record)
    for paragraph in examples.paragraphs(text)
  } - {None}


def _texts(record: Record) -> Iterator[str]:
  for value in record.values():
    yield from [value] if isinstance(value, str) else value


def _in_hash_order(records: Iterable[Record]) -> list[Record]:
  return sorted(records, key=lambda r: examples.text_hash(_to_json(r)))


def _to_json(record: Record) -> str:
  return json.dumps(record, sort_keys=True, ensure_ascii=False)


def _write(folder: pathlib.Path, records: Records, described: dict):
  import tensorflow as tf  # slow to import, and not needed to read a cache

  hashes = {}
  counts = collections.defaultdict(dict)
  for task in TASKS:
    content = hashlib.sha256()
    for split in SPLITS:
      rows = records[task, split]
      shards = NUM_SHARDS[split]
      for i in range(shards):
        name = f'{task}-{split}.tfrecord-{i:05d}-of-{shards:05d}'
        try:
          with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for row in rows[i::shards]:
              writer.write(serialize(row))
        except tf.errors.OpError as error:
          raise OSError(error.message) from error
      for row in rows:
        content.update(f'{split} {_to_json(row)}\n'.encode())
      counts[task][split] = {
        'examples': len(rows),
        'characters': sum(_num_characters(row) for row in rows),
      }
    hashes[task] = content.hexdigest()
  described = described | {
    'content_hashes': hashes,
    'counts': counts,
  }
  text = json.dumps(described, indent=1, ensure_ascii=False)
  (folder / 'corpus.json').write_text(text + '\n')


def serialize(record: Record) -> bytes:
  """The record as a tf.train.Example, the same bytes each time."""
  import tensorflow as tf

  features = {}
  for name, value in record.items():
    values = [value] if isinstance(value, str) else value
    features[name] = tf.train.Feature(
      bytes_list=tf.train.BytesList(value=[v.encode() for v in values])
    )
  example = tf.train.Example(features=tf.train.Features(feature=features))
  return example.SerializeToString(deterministic=True)


def _num_characters(record: Record) -> int:
  return sum(map(len, _texts(record)))


def _move(temporary: pathlib.Path, folder: pathlib.Path):
  """Renames into place, unless another process was first."""
  try:
    temporary.rename(folder)
  except OSError:
    if not (folder / 'corpus.json').is_file():
      raise


def table(described: dict) -> str:
  """`statistics` as text for people."""
  read = described['read']
  names = [f'{n} {v}' for n, v in described['distributions'].items()]
  rows = [('task', 'split', 'examples', 'characters')]
  for task, splits in described['counts'].items():
    for split, count in splits.items():
      rows.append(
        (task, split, f'{count["examples"]:,}', f'{count["characters"]:,}')
      )
  lines = [
    f'Corpus {described["subset"]}, key {described["key"]}',
    f'Python {described["python"]} and {len(names)} distributions:',
    textwrap.fill(
      ', '.join(names),
      78,
      initial_indent='  ',
      subsequent_indent='  ',
      break_on_hyphens=False,
    ),
    f'Read: {read["files"]:,} files ({read["unparsed"]} not parsed), '
    f'{read["docstrings"]:,} docstrings, {read["characters"]:,} characters, '
    f'{read["catalogues"]} catalogues',
    *(f'{t:20}{s:12}{e:>10}{c:>14}' for t, s, e, c in rows),
  ]
  return '\n'.join(lines)
