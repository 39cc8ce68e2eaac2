"""Scores with intervals, and paired differences, from saved predictions."""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
import zlib

import numpy as np

from gqa_flax.study import bootstrap
from gqa_flax.study import experiments

# Lines of evaluate_task's JSONL, in the order of the examples.
Lines = list[dict]
# Task name (without suffix) -> one list of lines for each seed's run.
Predictions = Mapping[str, Sequence[Lines]]


def read_predictions(path: os.PathLike | str) -> Lines:
  """Lines of a predictions file, by index."""
  text = pathlib.Path(path).read_text(encoding='utf-8')
  lines = [json.loads(line) for line in text.splitlines()]
  return sorted(lines, key=lambda line: line['index'])


def estimates(
  predictions: Predictions, count: int
) -> dict[str, bootstrap.Estimate]:
  """Metric -> estimate, 'average' (of the main metrics) included.

  Runs of several seeds are averaged, on the same resamples. Only the tasks
  that are there are scored; the average needs all.

  Args:
    predictions: of one system.
    count: resamples.
  """
  found = {}
  for task in experiments.TASKS:
    runs = predictions.get(task.name)
    if not runs:
      continue
    check_same_examples(task.name, runs)
    counts = bootstrap.resamples(len(runs[0]), count, _seed(task.name))
    for metric in task.metrics:
      found[metric] = bootstrap.average(
        [
          bootstrap.estimate(*_statistics(metric, lines), counts)
          for lines in runs
        ]
      )
  mains = [task.main for task in experiments.TASKS]
  if all(main in found for main in mains):
    found['average'] = bootstrap.average_of_tasks([found[m] for m in mains])
  return found


def _statistics(metric: str, lines: Lines):
  """(statistics [n, k], finish) of a metric."""
  if metric == 'bleu':
    return (
      bootstrap.bleu_statistics(
        [line['references'] for line in lines],
        [line['prediction'] for line in lines],
      ),
      bootstrap.bleu,
    )
  scores = np.array([[line['scores'][metric]] for line in lines], np.float64)
  return scores, bootstrap.mean


def _seed(task: str) -> int:
  """The same for every system, other for every task."""
  return zlib.crc32(task.encode())


def check_same_examples(task: str, runs: Sequence[Lines]):
  """Raises ValueError unless all runs scored the same examples, in order."""
  for lines in runs[1:]:
    if _references(lines) != _references(runs[0]):
      raise ValueError(
        f'{task}: predictions to be compared are of different examples '
        f'({len(lines)} and {len(runs[0])}).'
      )


def _references(lines: Lines) -> list[str]:
  """What identifies examples, whatever became of their white space."""
  return [' '.join(str(line['references']).split()) for line in lines]


def differences(
  of: Mapping[str, bootstrap.Estimate],
  reference: Mapping[str, bootstrap.Estimate],
) -> dict[str, dict[str, float]]:
  """Metric -> record of the paired difference, where both have it."""
  return {m: (of[m] - reference[m]).record() for m in of if m in reference}
