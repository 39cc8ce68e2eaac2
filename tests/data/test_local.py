"""Users' own files: every kind of task, every way to be wrong."""

import gzip
import json

import pytest
import seqio

from gqa_flax.data import local
from gqa_flax.data import vocabularies
from gqa_flax.errors import UserError

_ROWS = {
  'text': {'inputs': 'ask', 'targets': 'Größe'},
  'summarization': {'text': 'A long text.', 'summary': 'Short.'},
  'translation': {'source': 'the size', 'target': 'die Größe'},
  'question_answering': {
    'question': 'what?',
    'context': 'It is this.',
    'answers': ['this', 'that'],
  },
}
_INPUTS = {
  'text': 'ask',
  'summarization': 'summarize: A long text.',
  'translation': 'translate English to German: the size',
  'question_answering': 'question: what? context: It is this.',
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('GQA_FLAX_CACHE', str(tmp_path / 'cache'))


def _register(kind, train, dev=None, **kwargs):
  vocabulary = vocabularies.mini_vocabulary()
  return local.register_local_task(
    f'local_{kind}', kind, train, dev, vocabulary, **kwargs
  )


def _examples(task, split='train'):
  dataset = task.get_dataset(
    {'inputs': 64, 'targets': 32}, split=split, shuffle=False, num_epochs=1
  )
  return list(dataset.as_numpy_iterator())


@pytest.mark.parametrize('kind', local.KINDS)
def test_register_local_task_every_kind(kind, write_jsonl):
  train = write_jsonl('train.jsonl', [_ROWS[kind]] * 20)
  dev = write_jsonl('dev.jsonl', [_ROWS[kind]] * 3)
  task = _register(kind, train, dev)
  assert len(_examples(task)) == task.num_input_examples('train') == 20
  example, *others = _examples(task, 'validation')
  assert len(others) == 2
  assert example['inputs_pretokenized'].decode() == _INPUTS[kind]
  vocabulary = vocabularies.mini_vocabulary()
  assert vocabulary.decode(example['inputs'].tolist()) == _INPUTS[kind]
  assert example['inputs'][-1] == example['targets'][-1] == 1
  target = task.postprocess_fn('x', example=example, is_target=True)
  if kind == 'question_answering':
    assert target == ['this', 'that']
  assert len(task.metric_fns) == 1


@pytest.mark.parametrize('kind', ['summarization', 'translation'])
def test_plain_field_names_are_accepted(kind, write_jsonl):
  path = write_jsonl('a.jsonl', [_ROWS['text']])
  (example,) = _examples(_register(kind, path))
  assert example['inputs_pretokenized'].decode().endswith(': ask')


def test_gzip_and_a_single_answer_and_blank_lines(tmp_path):
  row = {**_ROWS['question_answering'], 'answers': 'this'}
  path = tmp_path / 'a.jsonl.gz'
  path.write_bytes(gzip.compress(f'\n{json.dumps(row)}\n\n'.encode()))
  task = _register('question_answering', path)
  (example,) = _examples(task)
  assert task.postprocess_fn('', example=example, is_target=True) == ['this']


def test_prefix_replaces_the_kinds_own(write_jsonl):
  path = write_jsonl('a.jsonl', [_ROWS['translation']])
  task = _register('translation', path, prefix='nach Deutsch: ')
  (example,) = _examples(task)
  assert example['inputs_pretokenized'].decode() == 'nach Deutsch: the size'


def test_register_again_reads_the_changed_file(write_jsonl):
  path = write_jsonl('a.jsonl', [_ROWS['text']])
  assert len(_examples(_register('text', path))) == 1
  write_jsonl('a.jsonl', [_ROWS['text']] * 2)
  assert len(_examples(_register('text', path))) == 2


@pytest.mark.parametrize(
  'line, message',
  [
    ('{"text": "a", "summary": ', r':2: not JSON \('),
    ('["text"]', ':2: not a JSON object'),
    ('{"text": "a"}', r':2: lacks summary \(a line of summarization has text'),
    ('{"text": "a", "summary": 3}', ':2: summary must be a string, not 3'),
    ('{"text": " ", "summary": "b"}', ':2: text is empty'),
    ('\xff', ':2: not UTF-8'),
  ],
)
def test_bad_line_is_named(tmp_path, line, message):
  path = tmp_path / 'a.jsonl'
  good = json.dumps(_ROWS['summarization'])
  path.write_bytes(f'{good}\n{line}\n'.encode('latin-1'))
  with pytest.raises(UserError, match=f'a.jsonl{message}'):
    _register('summarization', path)
  assert not list((tmp_path / 'cache').iterdir())  # nothing half-written


@pytest.mark.parametrize('answers', [[], 3, [3], ['']])
def test_bad_answers_are_named(write_jsonl, answers):
  row = {**_ROWS['question_answering'], 'answers': answers}
  path = write_jsonl('a.jsonl', [row])
  with pytest.raises(UserError, match='a.jsonl:1: .*answer'):
    _register('question_answering', path)


def test_bad_files_are_named(tmp_path, write_jsonl):
  with pytest.raises(UserError, match='No such file: .*none'):
    _register('text', tmp_path / 'none')
  with pytest.raises(UserError, match='empty.jsonl is empty'):
    _register('text', write_jsonl('empty.jsonl', []))
  truncated = tmp_path / 'a.jsonl.gz'
  truncated.write_bytes(gzip.compress(b'{"inputs": "a"}' * 100)[:30])
  with pytest.raises(UserError, match='Cannot read .*a.jsonl.gz'):
    _register('text', truncated)
  with pytest.raises(UserError, match="No task 'poetry'.*summarization"):
    _register('poetry', truncated)
  with pytest.raises(UserError, match='Neither'):
    _register('text', None, None)


def test_task_name_changes_with_the_content_of_a_file(write_jsonl):
  one = write_jsonl('a.jsonl', [_ROWS['text']])
  other = write_jsonl('b.jsonl', [_ROWS['text']] * 2)
  names = {
    local.task_name('text', one, one),
    local.task_name('text', one, other),
    local.task_name('text', other, one),
    local.task_name('summarization', one, one),
  }
  assert len(names) == 4
  again = write_jsonl('c.jsonl', [_ROWS['text']])
  assert local.task_name('text', again, one) in names


def test_local_task_shards(write_jsonl):
  path = write_jsonl('a.jsonl', [_ROWS['text']] * 40)
  task = _register('text', path)
  parts = [
    len(
      list(
        task.get_dataset(
          {'inputs': 8, 'targets': 8},
          split='train',
          shuffle=False,
          num_epochs=1,
          shard_info=seqio.ShardInfo(i, 2),
        )
      )
    )
    for i in range(2)
  ]
  assert sum(parts) == 40 and min(parts) > 0
