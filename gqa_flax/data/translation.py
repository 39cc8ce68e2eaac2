"""Translation of messages, English to German."""

from collections.abc import Iterable, Mapping

import tensorflow as tf

from gqa_flax.data import metrics

PREFIX = 'translate English to German: '


def preprocess(
  dataset: tf.data.Dataset,
  prefix: str = PREFIX,
  source: str = 'en',
  target: str = 'de',
) -> tf.data.Dataset:
  """{'inputs', 'targets'} strings, the inputs with T5's prefix."""

  def to_example(record):
    return {
      'inputs': tf.strings.join([prefix, record[source]]),
      'targets': record[target],
    }

  return dataset.map(to_example, num_parallel_calls=tf.data.AUTOTUNE)


def score_copy_baseline(records: Iterable[Mapping[str, str]]) -> dict:
  """The source itself as its translation: what a translator must beat.

  Not a straw man here: many messages are names or hold format
  specifications, which stay as they are.

  Args:
    records: {'en', 'de'} (`corpus.read`'s).

  Returns:
    {'scores': {name: score}, 'per_example': {name: list}, 'predictions'}.
  """
  records = list(records)
  targets = [r['de'] for r in records]
  predictions = [r['en'] for r in records]
  return {
    'scores': metrics.bleu(targets, predictions),
    'per_example': metrics.bleu_per_example(targets, predictions),
    'predictions': predictions,
  }
