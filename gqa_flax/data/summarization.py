"""Summarization: a description in, its summary line out."""

from collections.abc import Iterable, Mapping

import tensorflow as tf

from gqa_flax.data import examples
from gqa_flax.data import metrics

PREFIX = 'summarize: '


def preprocess(dataset: tf.data.Dataset, prefix: str = PREFIX):
  """{'inputs', 'targets'} strings, the inputs with T5's prefix."""

  def to_example(record):
    return {
      'inputs': tf.strings.join([prefix, record['inputs']]),
      'targets': record['targets'],
    }

  return dataset.map(to_example, num_parallel_calls=tf.data.AUTOTUNE)


def lead(text: str, max_words: int = 20) -> str:
  """The start of a text: its first sentence, at most so many words.

  What a summarizer must beat. A section's heading with its underline
  ('Parameters', '-----', 'Args:') is stepped over, or the baseline would be
  a straw man.
  """
  lines = text.splitlines()
  kept = [
    line
    for i, line in enumerate(lines)
    if not _is_rule(line)
    and not (i + 1 < len(lines) and _is_rule(lines[i + 1]))
    and not (line.strip().endswith(':') and len(line.split()) == 1)
  ]
  parts = examples.paragraphs('\n'.join(kept))
  words = examples.first_sentence(parts[0]).split() if parts else text.split()
  return ' '.join(words[:max_words])


def _is_rule(line: str) -> bool:
  return len(line.strip()) >= 3 and set(line.strip()) <= set('-=~')


def score_lead_baseline(
  records: Iterable[Mapping[str, str]], max_words: int = 20
) -> dict:
  """The copy-the-lead baseline, by the metric that models are scored with.

  Args:
    records: {'inputs', 'targets'}, without prefix (`corpus.read`'s).
    max_words: of the copied sentence.

  Returns:
    {'scores': {name: percent}, 'per_example': {name: list}, 'predictions'}.
  """
  records = list(records)
  targets = [r['targets'] for r in records]
  predictions = [lead(r['inputs'], max_words) for r in records]
  return {
    'scores': metrics.rouge(targets, predictions),
    'per_example': metrics.rouge_per_example(targets, predictions),
    'predictions': predictions,
  }
