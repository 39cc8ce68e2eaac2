"""Rough times of stages, in seconds on two idle CPU cores, for plans.

For the mini model (7.7 million parameters); measured where a figure is given.
"""

from gqa_flax.measure import timing

CORPUS = {'full': 150.0, 'small': 30.0}
COMPILING = 10.0  # A training step, and an evaluation.
DEV_EXAMPLES = 750  # Of a task, on average, in the whole corpus.

_SECONDS_PER_TOKEN = 0.6 / (32 * 157)  # 0.6 s a step of 32 x (128 + 29).
_SECONDS_PER_DECODED_EXAMPLE = 0.012
_ENCODING = 15e-6  # A token.
_DECODING = 0.6e-6  # A step, a sample, a token of the source, at G = H.


def training(steps: int, batch_size: int, tokens: int) -> float:
  """Updates on batches of examples of so many tokens, inputs and targets."""
  return steps * batch_size * tokens * _SECONDS_PER_TOKEN


def decoding(examples: int) -> float:
  """Greedy predictions and their scores."""
  return 5 + examples * _SECONDS_PER_DECODED_EXAMPLE


def timing_seconds(shape: timing.Shape, rounds: int) -> float:
  """A model at a shape, compilation included."""
  tokens = shape.batch_size * shape.input_length
  encode = tokens * _ENCODING * (1 + shape.input_length / 1000)
  decode = tokens * shape.output_length * _DECODING
  return 5 + (rounds + 2) * (encode + decode)
