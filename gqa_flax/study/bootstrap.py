"""Percentile bootstrap over examples.

Systems are compared on the same resamples, so that a difference has an
interval of its own (paired bootstrap; Koehn 2004). What a system contributes
is a row of statistics an example, whose sum over a resample gives the metric:
one number for a mean; for BLEU, which is no mean, sacreBLEU's counts.
"""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

CONFIDENCE = 0.95

# (sums [k], number of examples) -> value
Finish = Callable[[np.ndarray, int], float]


def mean(sums: np.ndarray, n: int) -> float:
  """The metric that is the mean of one number an example."""
  return float(sums[0] / n)


def bleu(sums: np.ndarray, n: int) -> float:
  """Corpus BLEU from summed `bleu_statistics`."""
  del n
  from sacrebleu.metrics import BLEU

  counts = [int(round(x)) for x in sums]
  return BLEU.compute_bleu(
    correct=counts[2:6],
    total=counts[6:10],
    sys_len=counts[0],
    ref_len=counts[1],
    smooth_method='exp',
  ).score


def bleu_statistics(
  references: Sequence[str], predictions: Sequence[str]
) -> np.ndarray:
  """[n, 10]: lengths, and matches and totals of 1- to 4-grams.

  The tokenizer is `metrics.bleu`'s first, the `t5` package's ('intl').
  """
  from sacrebleu.metrics import BLEU

  scorer = BLEU(tokenize='intl', smooth_method='exp', effective_order=True)
  rows = []
  for reference, prediction in zip(references, predictions, strict=True):
    score = scorer.sentence_score(prediction, [reference])
    rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
  return np.asarray(rows, np.float64)


def resamples(n: int, count: int, seed: int) -> np.ndarray:
  """[count, n]: how often each of n examples occurs in each resample."""
  rng = np.random.default_rng(seed)
  return rng.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float64)


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A metric of a system.

  Attributes:
    value: on the examples themselves.
    samples: [count], on the resamples.
    n: examples.
  """

  value: float
  samples: np.ndarray
  n: int

  def __sub__(self, other: 'Estimate') -> 'Estimate':
    """The paired difference: both must come from the same resamples."""
    return Estimate(
      self.value - other.value, self.samples - other.samples, self.n
    )

  def record(self) -> dict[str, float]:
    """{'value', 'low', 'high', 'n'} at CONFIDENCE."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(self.samples, (tail, 1 - tail))
    return {
      'value': self.value,
      'low': float(low),
      'high': float(high),
      'n': self.n,
    }


def estimate(
  statistics: np.ndarray, finish: Finish, counts: np.ndarray
) -> Estimate:
  """A metric and its bootstrap distribution.

  Args:
    statistics: [n, k].
    finish: sum [k] of n rows -> value.
    counts: [count, n] of `resamples`.
  """
  n = len(statistics)
  sums = counts @ statistics
  samples = np.array([finish(row, n) for row in sums])
  return Estimate(finish(statistics.sum(0), n), samples, n)


def average(estimates: Sequence[Estimate]) -> Estimate:
  """The mean of metrics (over tasks, or over runs of several seeds).

  n is the largest, which for runs on the same examples is their number; for
  tasks see `average_of_tasks`.
  """
  return Estimate(
    float(np.mean([e.value for e in estimates])),
    np.mean([e.samples for e in estimates], axis=0),
    max(e.n for e in estimates),
  )


def average_of_tasks(estimates: Sequence[Estimate]) -> Estimate:
  """The mean over tasks, whose examples add up."""
  total = sum(e.n for e in estimates)
  return dataclasses.replace(average(estimates), n=total)
