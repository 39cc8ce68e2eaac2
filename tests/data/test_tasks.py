"""The registered tasks, on a tiny corpus, through seqio's own calls."""

import numpy as np
import pytest
import seqio

from gqa_flax.data import corpus
from gqa_flax.data import tasks  # noqa: F401  (registers)
from gqa_flax.data import vocabularies

_LENGTHS = {'inputs': 96, 'targets': 32}
_FINETUNING = [
  ('gqa_flax_docs_summarization', 'summarization', 'summarize: '),
  ('gqa_flax_docs_question_answering', 'question_answering', 'question: '),
  (
    'gqa_flax_messages_en_de',
    'translation',
    'translate English to German: ',
  ),
]


def _take(name, count=8, lengths=_LENGTHS, **kwargs):
  provider = seqio.get_mixture_or_task(name)
  kwargs = {'split': 'train', 'shuffle': True, 'seed': 0, **kwargs}
  dataset = provider.get_dataset(lengths, **kwargs)
  dataset = seqio.EncDecFeatureConverter(pack=False)(dataset, lengths)
  return list(dataset.take(count).as_numpy_iterator())


def test_every_task_has_its_small_twin():
  names = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
  ours = [n for n, _, _ in _FINETUNING]
  for name in [
    'gqa_flax_docs_span_corruption',
    'gqa_flax_mini_finetune',
    *ours,
  ]:
    assert {name, f'{name}_small'} <= names


def test_span_corruption_fills_its_lengths(tiny_corpus):
  lengths = {'inputs': 128, 'targets': 29}
  name = 'gqa_flax_docs_span_corruption_small'
  first = _take(name, 16, lengths, num_epochs=None)
  again = _take(name, 16, lengths, num_epochs=None)
  other = _take(name, 16, lengths, num_epochs=None, seed=1)
  for a, b in zip(first, again):
    for key in a:
      np.testing.assert_array_equal(a[key], b[key])
  assert any(
    (a['encoder_input_tokens'] != b['encoder_input_tokens']).any()
    for a, b in zip(first, other)
  )
  for example in first:
    assert example['encoder_input_tokens'].shape == (128,)
    assert example['decoder_target_tokens'].shape == (29,)
    assert example['decoder_target_tokens'][0] == 4095
    assert example['encoder_input_tokens'][-1] == 1
    assert example['decoder_loss_weights'].sum() == 29


@pytest.mark.parametrize('name, kind, prefix', _FINETUNING)
def test_finetuning_task_has_prefix_and_end(tiny_corpus, name, kind, prefix):
  vocabulary = vocabularies.mini_vocabulary()
  for example in _take(f'{name}_small', num_epochs=1):
    text = vocabulary.decode(example['encoder_input_tokens'].tolist())
    assert text.startswith(prefix)
    inputs = example['encoder_input_tokens']
    assert inputs[inputs != 0][-1] == 1  # also where it was truncated


@pytest.mark.parametrize('name, kind, prefix', _FINETUNING)
def test_finetuning_task_perfect_predictions_score_100(
  tiny_corpus, name, kind, prefix
):
  task = seqio.get_mixture_or_task(f'{name}_small')
  dataset = task.get_dataset(
    _LENGTHS, split='validation', shuffle=False, num_epochs=1
  )
  targets, predictions = [], []
  for example in dataset.take(20).as_numpy_iterator():
    text = example['targets_pretokenized'].decode()
    predictions.append(
      task.postprocess_fn(text, example=example, is_target=False)
    )
    targets.append(task.postprocess_fn(text, example=example, is_target=True))
  for metric in task.metric_fns:
    scores = metric(targets, predictions)
    assert all(v == pytest.approx(100) for v in scores.values())


def test_question_answering_keeps_all_answers(tiny_corpus):
  task = seqio.get_mixture_or_task('gqa_flax_docs_question_answering_small')
  dataset = task.get_dataset(
    _LENGTHS, split='train', shuffle=False, num_epochs=1
  )
  found = [
    task.postprocess_fn('', example=e, is_target=True)
    for e in dataset.as_numpy_iterator()
  ]
  expected = [
    r['answers']
    for r in corpus.read(tiny_corpus, 'question_answering', 'train')
  ]
  assert sorted(found) == sorted(expected)
  assert any(len(answers) == 2 for answers in found)


def test_mixture_has_all_three_in_equal_parts(tiny_corpus):
  vocabulary = vocabularies.mini_vocabulary()
  examples = _take('gqa_flax_mini_finetune_small', 120, num_epochs=None)
  starts = [
    vocabulary.decode(e['encoder_input_tokens'].tolist()).split()[0]
    for e in examples
  ]
  counts = [starts.count(w) for w in ('summarize:', 'question:', 'translate')]
  assert sum(counts) == 120
  assert min(counts) > 20


def test_num_input_examples_are_the_statistics(tiny_corpus):
  task = seqio.get_mixture_or_task('gqa_flax_messages_en_de_small')
  counts = corpus.statistics('small')['counts']['translation']
  assert task.num_input_examples('train') == counts['train']['examples']
