"""Question answering: a question and its context in, an answer out."""

from collections.abc import Mapping

import tensorflow as tf


def preprocess(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """{'inputs', 'targets', 'answers'}: T5's format for SQuAD and TriviaQA.

  The first answer is the one to learn; scoring accepts all of them.
  """

  def to_example(record):
    return {
      'inputs': tf.strings.join(
        ['question: ', record['question'], ' context: ', record['context']]
      ),
      'targets': record['answers'][0],
      'answers': record['answers'],
    }

  return dataset.map(to_example, num_parallel_calls=tf.data.AUTOTUNE)


def postprocess(
  decoded: str, example: Mapping | None = None, is_target: bool = False
) -> str | list[str]:
  """seqio postprocessor: the target becomes all accepted answers."""
  if is_target:
    return [tf.compat.as_text(a) for a in example['answers']]
  return decoded
