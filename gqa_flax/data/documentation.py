"""The documentation corpus as a seqio data source, built on first use."""

from collections.abc import Mapping, Sequence

import seqio
import tensorflow as tf

from gqa_flax.data import corpus

_TEXT = tf.io.FixedLenFeature([], tf.string)
FEATURES = {
  'documents': {'text': _TEXT},
  'summarization': {'inputs': _TEXT, 'targets': _TEXT},
  'question_answering': {
    'question': _TEXT,
    'context': _TEXT,
    'answers': tf.io.RaggedFeature(tf.string),
  },
  'translation': {'en': _TEXT, 'de': _TEXT},
}


class DocumentationDataSource(seqio.TFExampleDataSource):
  """One task's records of the corpus.

  Making the source reads nothing: the corpus is looked for, and if need be
  built, when shards are first listed. So tasks register in an instant, and
  work under T5X as under our own driver.
  """

  def __init__(self, task: str, subset: str = 'full'):
    """Args as in `corpus.build`; task is one of `corpus.TASKS`."""
    self._task = task
    self._subset = subset
    super().__init__(
      split_to_filepattern={
        split: f'corpus({subset})/{task}-{split}' for split in corpus.SPLITS
      },
      feature_description=FEATURES[task],
    )

  def list_shards(self, split: str) -> Sequence[str]:
    folder = corpus.build(self._subset)
    pattern = corpus.shard_pattern(folder, self._task, split)
    return sorted(tf.io.gfile.glob(pattern))

  def num_input_examples(self, split: str) -> int:
    counts: Mapping = corpus.statistics(self._subset)['counts']
    return counts[self._task][split]['examples']
