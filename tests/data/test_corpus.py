"""The corpus of a few real distributions: splits, repeatability, cache."""

import json
import os
import subprocess
import sys

import pytest

from gqa_flax.data import corpus
from gqa_flax.data import examples
from gqa_flax.data import sources
from gqa_flax.errors import UserError


def test_statistics_count_what_is_in_the_files(tiny_corpus):
  counts = corpus.statistics('small')['counts']
  for task in corpus.TASKS:
    for split in corpus.SPLITS:
      records = list(corpus.read(tiny_corpus, task, split))
      assert len(records) == counts[task][split]['examples'] > 0
      characters = sum(len(t) for r in records for t in corpus._texts(r))
      assert characters == counts[task][split]['characters']


def test_no_validation_paragraph_is_in_any_training(tiny_corpus):
  def keys(split):
    return {
      examples.paragraph_key(p)
      for task in corpus.TASKS
      for record in corpus.read(tiny_corpus, task, split)
      for text in corpus._texts(record)
      for p in examples.paragraphs(text)
    } - {None}

  assert len(keys('validation')) > 100
  assert not keys('validation') & keys('train')


def test_messages_near_duplicates_are_in_one_split(tiny_corpus):
  def keys(split):
    records = corpus.read(tiny_corpus, 'translation', split)
    return [examples.normalized(r['en']) for r in records]

  train, validation = keys('train'), keys('validation')
  assert not set(train) & set(validation)
  assert len(set(train)) == len(train)


def test_table_says_the_counts(tiny_corpus):
  described = corpus.statistics('small')
  text = corpus.table(described)
  assert described['key'] in text and 'optax' in text
  examples_ = described['counts']['documents']['train']['examples']
  assert any(
    line.split()[:3] == ['documents', 'train', f'{examples_:,}']
    for line in text.splitlines()
  )
  assert len(described['content_hash']) == 64


def test_documents_repeat_no_paragraph(tiny_corpus):
  seen = set()
  for record in corpus.read(tiny_corpus, 'documents', 'train'):
    for paragraph in examples.paragraphs(record['text']):
      key = examples.paragraph_key(paragraph)
      assert key is None or key not in seen
      seen.add(key)


def test_collect_again_gives_the_same_records(tiny_corpus):
  first, _ = corpus.collect('small')
  for (task, split), records in first.items():
    stored = list(corpus.read(tiny_corpus, task, split))
    in_order = [None] * len(records)
    shards = corpus.NUM_SHARDS[split]
    start = 0
    for i in range(shards):
      part = range(i, len(records), shards)
      for position, record in zip(part, stored[start:]):
        in_order[position] = record
      start += len(part)
    assert in_order == records


def test_build_again_reads_nothing(tiny_corpus, monkeypatch):
  def fail(*_):
    raise AssertionError('The corpus was collected again.')

  monkeypatch.setattr(corpus, 'collect', fail)
  assert corpus.build('small') == tiny_corpus


def test_build_failing_leaves_nothing_behind(
  tiny_corpus, monkeypatch, tmp_path
):
  def fail(folder, *_):
    (folder / 'half').write_text('a')
    raise OSError(28, 'No space left on device')

  monkeypatch.setenv('GQA_FLAX_CACHE', str(tmp_path))
  monkeypatch.setattr(corpus, 'collect', lambda _: ({}, {}))
  monkeypatch.setattr(corpus, '_write', fail)
  with pytest.raises(UserError, match='No space left on device'):
    corpus.build('small')
  assert list(tmp_path.iterdir()) == []


def test_corpus_json_names_versions(tiny_corpus):
  stored = json.loads((tiny_corpus / 'corpus.json').read_text())
  assert set(stored['distributions']) == {'Django', 'absl-py', 'optax'}
  assert set(stored['content_hashes']) == set(corpus.TASKS)
  assert tiny_corpus.name == f'corpus-{sources.key("small")}'


def test_missing_distribution_is_named(monkeypatch):
  documentation = {**sources._DOCUMENTATION_OF, 'small': ('no-such-thing',)}
  monkeypatch.setattr(sources, '_DOCUMENTATION_OF', documentation)
  with pytest.raises(UserError, match='pip install no-such-thing'):
    corpus.build('small')


def test_unknown_subset_is_refused():
  with pytest.raises(ValueError, match="'tiny'.*full"):
    corpus.build('tiny')


def test_named_distributions_are_installed():
  assert sources.description()['distributions'].keys() == {
    *sources.DOCUMENTATION,
    *sources.MESSAGES,
  }


def test_catalogue_files_prefer_compiled_ones():
  files = sources.catalogue_files()
  stems = [f.name.rsplit('.', 1)[0] for f in files]
  assert len(stems) == len(set(stems)) > 10
  assert any(f.name.startswith('gramps:') for f in files)


def test_standard_library_has_no_tests():
  names = [f.name for f in sources._standard_library_files()]
  assert 'python:json/decoder.py' in names
  assert not [n for n in names if '/test' in n and 'unittest' not in n]


def test_what_a_killed_build_left_is_removed(tmp_path):
  ended = subprocess.Popen([sys.executable, '-c', ''])
  ended.wait()
  left = tmp_path / f'corpus-x.tmp-{ended.pid}'
  in_work = tmp_path / f'corpus-x.tmp-{os.getpid()}'
  for folder in (left, in_work, tmp_path / 'corpus-x'):
    folder.mkdir()
  corpus._remove_abandoned(tmp_path)
  assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
    ['corpus-x', in_work.name]
  )


@pytest.mark.slow
def test_every_task_has_500_dev_examples():
  counts = corpus.statistics('full')['counts']
  for task in ('summarization', 'question_answering', 'translation'):
    assert counts[task]['validation']['examples'] >= 500
  assert counts['documents']['train']['characters'] > 10_000_000


@pytest.mark.slow
def test_small_part_holds_out_files_that_the_full_one_holds_out():
  names = {
    subset: {f.name for f in sources.documentation_files(subset)}
    for subset in ('small', 'full')
  }
  assert names['small'] <= names['full']
