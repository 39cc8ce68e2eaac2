"""The bootstrap against scipy's, and BLEU's statistics against sacreBLEU."""

import numpy as np
import pytest
import scipy.stats

from gqa_flax.data import metrics
from gqa_flax.study import bootstrap

REFERENCES = [
  'Die Datei wurde nicht gefunden.',
  'Bitte geben Sie eine Zahl ein.',
  'Der Name ist zu lang.',
  'Alle Änderungen wurden gespeichert.',
]
PREDICTIONS = [
  'Die Datei wurde gefunden.',
  'Bitte geben Sie einen Namen ein.',
  'Der Name ist zu lang.',
  'Änderungen gespeichert',
]


def test_interval_of_a_mean_is_scipys():
  scores = np.random.default_rng(0).gamma(2.0, 10.0, 300)
  counts = bootstrap.resamples(300, 10_000, seed=1)
  found = bootstrap.estimate(scores[:, None], bootstrap.mean, counts).record()
  expected = scipy.stats.bootstrap(
    (scores,),
    np.mean,
    n_resamples=10_000,
    method='percentile',
    rng=np.random.default_rng(2),
  ).confidence_interval
  width = expected.high - expected.low
  assert found['value'] == pytest.approx(scores.mean())
  assert found['low'] == pytest.approx(expected.low, abs=0.03 * width)
  assert found['high'] == pytest.approx(expected.high, abs=0.03 * width)
  assert found['n'] == 300


def test_interval_of_a_paired_difference_is_scipys():
  rng = np.random.default_rng(0)
  first = rng.normal(30, 10, 200)
  second = first - rng.normal(1, 2, 200)
  counts = bootstrap.resamples(200, 10_000, seed=1)
  a, b = (
    bootstrap.estimate(x[:, None], bootstrap.mean, counts)
    for x in (first, second)
  )
  found = (a - b).record()
  expected = scipy.stats.bootstrap(
    (first, second),
    lambda x, y, axis: np.mean(x - y, axis=axis),
    paired=True,
    n_resamples=10_000,
    method='percentile',
    rng=np.random.default_rng(2),
  ).confidence_interval
  width = expected.high - expected.low
  assert found['low'] == pytest.approx(expected.low, abs=0.03 * width)
  assert found['high'] == pytest.approx(expected.high, abs=0.03 * width)
  # Pairing is what makes it narrow.
  assert width < 0.5 * (a.record()['high'] - a.record()['low'])


def test_bleu_of_summed_statistics_is_sacrebleus():
  statistics = bootstrap.bleu_statistics(REFERENCES, PREDICTIONS)
  assert statistics.shape == (4, 10)
  found = bootstrap.bleu(statistics.sum(0), 4)
  assert found == pytest.approx(metrics.bleu(REFERENCES, PREDICTIONS)['bleu'])


def test_bleu_of_a_resample_is_that_of_the_repeated_examples():
  statistics = bootstrap.bleu_statistics(REFERENCES, PREDICTIONS)
  counts = np.array([[2.0, 0, 1, 1]])
  found = bootstrap.estimate(statistics, bootstrap.bleu, counts)
  chosen = [0, 0, 2, 3]
  expected = metrics.bleu(
    [REFERENCES[i] for i in chosen], [PREDICTIONS[i] for i in chosen]
  )['bleu']
  assert found.samples[0] == pytest.approx(expected)


def test_resamples_are_of_n_and_the_same_for_a_seed():
  counts = bootstrap.resamples(7, 20, seed=3)
  np.testing.assert_array_equal(counts.sum(1), np.full(20, 7))
  np.testing.assert_array_equal(counts, bootstrap.resamples(7, 20, seed=3))


def test_average_of_tasks_adds_their_examples():
  a = bootstrap.Estimate(1.0, np.array([0.0, 2.0]), 10)
  b = bootstrap.Estimate(3.0, np.array([2.0, 6.0]), 30)
  found = bootstrap.average_of_tasks([a, b])
  assert (found.value, found.n) == (2.0, 40)
  np.testing.assert_array_equal(found.samples, [1.0, 4.0])
