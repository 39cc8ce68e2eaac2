"""Metrics against the libraries that they join, and at their edges."""

import json
import pathlib

import pytest
from rouge_score import rouge_scorer
import sacrebleu

from gqa_flax.data import metrics

# Made by t5 0.9.4's qa_utils and metrics; see make_metrics_golden.py.
_GOLDEN = json.loads(
  pathlib.Path(__file__).with_name('metrics_golden.json').read_text()
)

_TARGETS = [
  'Returns the sum of all elements. The result is cast.',
  'Die Datei wurde gelöscht.',
  'One sentence only',
]
_PREDICTIONS = [
  'Return sums of the elements. It is casted.',
  'Die Datei ist gelöscht worden.',
  '',
]


def test_rouge_is_rouge_scores_with_sentences_on_lines():
  scorer = rouge_scorer.RougeScorer(
    ['rouge1', 'rouge2', 'rougeLsum'], use_stemmer=True
  )
  found = metrics.rouge_per_example(_TARGETS, _PREDICTIONS)
  for i, (target, prediction) in enumerate(zip(_TARGETS, _PREDICTIONS)):
    expected = scorer.score(
      target.replace('. ', '.\n'), prediction.replace('. ', '.\n')
    )
    for name, values in found.items():
      assert values[i] == pytest.approx(100 * expected[name].fmeasure)


def test_rouge_lsum_differs_from_whole_text_when_sentences_move():
  targets, predictions = (
    ['First it is. Then it was.'],
    ['Then it was. First it is.'],
  )
  assert metrics.rouge(targets, predictions)['rougeLsum'] == pytest.approx(100)


def test_rouge_perfect_and_empty():
  perfect = metrics.rouge(_TARGETS, _TARGETS)
  assert perfect == pytest.approx({k: 100.0 for k in metrics.ROUGE_TYPES})
  empty = metrics.rouge(_TARGETS, [''] * 3)
  assert empty == {k: 0.0 for k in metrics.ROUGE_TYPES}


@pytest.mark.parametrize('case', _GOLDEN['answers'], ids=str)
def test_answer_scores_are_the_t5_packages(case):
  found = metrics.answer_scores([case['answers']], [case['prediction']])
  assert found == pytest.approx({'em': case['em'], 'f1': case['f1']})


def test_answer_scores_mean_is_the_t5_packages():
  cases = _GOLDEN['answers']
  found = metrics.answer_scores(
    [c['answers'] for c in cases], [c['prediction'] for c in cases]
  )
  assert found == pytest.approx(_GOLDEN['answers_mean'])


def test_answer_scores_a_single_string_is_refused():
  with pytest.raises(ValueError, match='list of answers'):
    metrics.answer_scores(['an answer'], ['an answer'])


@pytest.mark.parametrize('case', _GOLDEN['bleu'], ids=str)
def test_bleu_is_the_t5_packages(case):
  found = metrics.bleu(case['targets'], case['predictions'])
  assert found['bleu'] == pytest.approx(case['bleu'])


def test_bleu_13a_is_sacrebleus_default():
  expected = sacrebleu.corpus_bleu(_PREDICTIONS, [_TARGETS]).score
  found = metrics.bleu(_TARGETS, _PREDICTIONS)
  assert found['bleu_13a'] == pytest.approx(expected)


def test_bleu_per_example_is_sentence_bleu():
  found = metrics.bleu_per_example(_TARGETS, _PREDICTIONS)
  for i, (target, prediction) in enumerate(zip(_TARGETS, _PREDICTIONS)):
    expected = sacrebleu.sentence_bleu(prediction, [target]).score
    assert found['bleu_13a'][i] == pytest.approx(expected)
  assert found['bleu'][2] == 0


def test_bleu_signatures_state_the_settings():
  signatures = metrics.bleu_signatures()
  assert 'tok:intl|smooth:exp' in signatures['bleu']
  assert 'tok:13a|smooth:exp' in signatures['bleu_13a']
  assert sacrebleu.__version__ in signatures['bleu']


@pytest.mark.parametrize(
  'metric, targets',
  [
    (metrics.rouge, _TARGETS),
    (metrics.answer_scores, [[t, 'another'] for t in _TARGETS]),
  ],
)
def test_per_example_means_are_the_metric(metric, targets):
  whole = metric(targets, _PREDICTIONS)
  each = metrics.per_example(metric)(targets, _PREDICTIONS)
  for name, values in each.items():
    assert len(values) == 3
    assert sum(values) / 3 == pytest.approx(whole[name])


@pytest.mark.parametrize(
  'metric', [metrics.rouge, metrics.answer_scores, metrics.bleu]
)
def test_unequal_or_no_examples_are_refused(metric):
  with pytest.raises(ValueError, match=r'predictions \(0\).*targets \(0\)'):
    metric([], [])
  with pytest.raises(ValueError, match=r'predictions \(1\).*targets \(2\)'):
    metric([['a'], ['b']], ['a'])
