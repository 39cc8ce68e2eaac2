"""Metrics of the fine-tuning tasks: (targets, predictions) -> {name: float}.

Only code that joins public libraries, set as the T5 work sets them. All
values are in percent. Each metric has a twin that scores single examples (for
bootstrap intervals); `per_example` finds it.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
import functools
import re
import string

ROUGE_TYPES = ('rouge1', 'rouge2', 'rougeLsum')

_SENTENCE_END = re.compile(r'(?<=[.!?])\s+')
# TriviaQA's evaluation script: string.punctuation and these are spaces.
_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation + '‘’´`'), ' ')
_ARTICLES = re.compile(r'\b(a|an|the)\b')


def per_example(
  metric: Callable[..., Mapping[str, float]],
) -> Callable[..., dict[str, list[float]]]:
  """The metric's twin, of the same arguments, with a list for each name.

  ROUGE and the answers' scores are the means of their lists. BLEU is not: it
  is a figure of the whole corpus, and its twin gives sentence BLEU.
  """
  return {
    rouge: rouge_per_example,
    answer_scores: answer_scores_per_example,
    bleu: bleu_per_example,
  }[metric]


def rouge(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float]:
  """ROUGE-1, ROUGE-2 and ROUGE-Lsum, F-measure with Porter's stemmer.

  The mean over examples (the `t5` package gives the middle of a bootstrap
  sample of the same mean, which differs by chance). Sentences are put on
  lines of their own first, as ROUGE-Lsum needs.
  """
  return _means(rouge_per_example(targets, predictions))


def rouge_per_example(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, list[float]]:
  """Each example's F-measures."""
  _check_lengths(targets, predictions)
  scorer = _rouge_scorer()
  scores = {name: [] for name in ROUGE_TYPES}
  for target, prediction in zip(targets, predictions):
    found = scorer.score(_sentences(target), _sentences(prediction))
    for name in ROUGE_TYPES:
      scores[name].append(100 * found[name].fmeasure)
  return scores


@functools.cache
def _rouge_scorer():
  from rouge_score import rouge_scorer  # imports nltk, which is slow

  return rouge_scorer.RougeScorer(ROUGE_TYPES, use_stemmer=True)


def _sentences(text: str) -> str:
  return '\n'.join(_SENTENCE_END.split(text.strip()))


def answer_scores(
  targets: Sequence[Sequence[str]], predictions: Sequence[str]
) -> dict[str, float]:
  """Exact match and token F1, best over an example's answers.

  Args:
    targets: all accepted answers of each example.
    predictions: one answer each.

  Returns:
    {'em', 'f1'}, normalised as TriviaQA's official evaluation does.
  """
  return _means(answer_scores_per_example(targets, predictions))


def answer_scores_per_example(
  targets: Sequence[Sequence[str]], predictions: Sequence[str]
) -> dict[str, list[float]]:
  """Each example's exact match (0 or 100) and F1."""
  _check_lengths(targets, predictions)
  scores = {'em': [], 'f1': []}
  for answers, prediction in zip(targets, predictions):
    if isinstance(answers, str) or not len(answers):
      raise ValueError(
        f'targets must hold a list of answers for each example, not {answers!r}'
      )
    answers = [normalize_answer(a) for a in answers]
    prediction = normalize_answer(prediction)
    scores['em'].append(100.0 * (prediction in answers))
    scores['f1'].append(100 * max(_token_f1(a, prediction) for a in answers))
  return scores


def normalize_answer(text: str) -> str:
  """Lower case, without punctuation, articles and superfluous space."""
  text = text.replace('_', ' ').lower().translate(_PUNCTUATION)
  return ' '.join(_ARTICLES.sub(' ', text).split())


def _token_f1(target: str, prediction: str) -> float:
  target, prediction = target.split(), prediction.split()
  same = collections.Counter(target) & collections.Counter(prediction)
  num_same = sum(same.values())
  # 2PR / (P + R), with P = same / predicted and R = same / wanted.
  return 2 * num_same / (len(target) + len(prediction)) if num_same else 0.0


def bleu(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, float]:
  """Corpus BLEU by sacreBLEU, with two tokenizers.

  Returns:
    {'bleu': as the `t5` package sets it (tokenizer 'intl', smoothing 'exp'),
    'bleu_13a': sacreBLEU's default}. `bleu_signatures` states the settings.
  """
  _check_lengths(targets, predictions)
  return {
    name: scorer.corpus_score(list(predictions), [list(targets)]).score
    for name, scorer in _bleu_scorers(effective_order=False).items()
  }


def bleu_per_example(
  targets: Sequence[str], predictions: Sequence[str]
) -> dict[str, list[float]]:
  """Sentence BLEU: n-gram orders longer than the sentence are left out."""
  _check_lengths(targets, predictions)
  return {
    name: [
      scorer.sentence_score(prediction, [target]).score
      for target, prediction in zip(targets, predictions)
    ]
    for name, scorer in _bleu_scorers(effective_order=True).items()
  }


def bleu_signatures() -> dict[str, str]:
  """sacreBLEU's signature of each figure of `bleu`, to be printed with it."""
  signatures = {}
  for name, scorer in _bleu_scorers(effective_order=False).items():
    scorer.corpus_score(['a'], [['a']])  # it has no signature before a score
    signatures[name] = str(scorer.get_signature())
  return signatures


def _bleu_scorers(effective_order: bool) -> dict:
  from sacrebleu.metrics import BLEU

  return {
    name: BLEU(
      tokenize=tokenizer,
      smooth_method='exp',
      effective_order=effective_order,
    )
    for name, tokenizer in (('bleu', 'intl'), ('bleu_13a', '13a'))
  }


def _means(scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
  return {k: sum(v) / len(v) for k, v in scores.items()}


def _check_lengths(targets: Sequence, predictions: Sequence):
  if not targets or len(targets) != len(predictions):
    raise ValueError(
      f'predictions ({len(predictions)}) must be as many as targets '
      f'({len(targets)}), at least one.'
    )
