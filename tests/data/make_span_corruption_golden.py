"""Writes span_corruption_golden.json with the `t5` package (0.9.4).

  pip install --no-deps t5 Babel
  python tests/data/make_span_corruption_golden.py

The golden file lets the fast suite compare without that package.
"""

import hashlib
import json
import pathlib

import numpy as np
import seqio
import tensorflow as tf

GOLDEN = pathlib.Path(__file__).with_name('span_corruption_golden.json')
VOCAB_SIZE = 4096
# (inputs length, targets length, seed of seqio's map_seed_manager)
CASES = ((128, 29, 0), (512, 114, 3), (64, 16, 1))


def documents() -> tf.data.Dataset:
  """140 documents of 0 to 100 random tokens, and one of 70,000."""
  rng = np.random.default_rng(0)
  lengths = [*rng.integers(0, 100, 140), 70_000]
  tokens = [rng.integers(3, 3996, n).astype(np.int32) for n in lengths]
  return tf.data.Dataset.from_generator(
    lambda: ({'targets': t} for t in tokens),
    output_signature={'targets': tf.TensorSpec([None], tf.int32)},
  )


def run(span_corruption, inputs_length, targets_length, seed) -> list[dict]:
  """Examples as lists of ids."""
  feature = seqio.Feature(seqio.PassThroughVocabulary(VOCAB_SIZE))
  with seqio.map_seed_manager(seed):
    dataset = span_corruption(
      documents(),
      sequence_length={'inputs': inputs_length, 'targets': targets_length},
      output_features={'inputs': feature, 'targets': feature},
    )
  return [
    {k: v.tolist() for k, v in example.items()}
    for example in dataset.as_numpy_iterator()
  ]


def digest(examples: list[dict]) -> str:
  text = json.dumps(examples, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def main():
  import t5.data.preprocessors

  golden = []
  for case in CASES:
    examples = run(t5.data.preprocessors.span_corruption, *case)
    golden.append(
      {
        'case': case,
        'count': len(examples),
        'sha256': digest(examples),
        'first': examples[:2],
        'last': examples[-1],
      }
    )
  GOLDEN.write_text(json.dumps(golden) + '\n')


if __name__ == '__main__':
  main()
