"""Span corruption: T5's pre-training objective (Raffel et al., section 3.1.4).

Documents are concatenated and cut into segments of a fixed length; in each,
random spans of tokens are replaced in the inputs by one sentinel each, and
the targets hold the same sentinels, each followed by what it replaced:

  raw      thank you for inviting me to your party last week
  inputs   thank you <X> me to your party <Y> week </s>
  targets  <X> for inviting <Y> last <Z> </s>      (<Z> closes the last span)

The steps, their random draws and their order are those of T5's own
preprocessors, so under the same seeds the examples are the same, token for
token (the tests hold this against examples that the `t5` package made).
All randomness is stateless, seeded through seqio.map_over_dataset.
"""

from collections.abc import Mapping
import math

import seqio
import tensorflow as tf

NOISE_DENSITY = 0.15
MEAN_SPAN_LENGTH = 3.0

# Of a longer document, one chunk of this many tokens is taken in each epoch.
_MAX_DOCUMENT_TOKENS = 65536
_DOCUMENTS_TO_JOIN = 128


def raw_length(
  inputs_length: int,
  noise_density: float = NOISE_DENSITY,
  mean_span_length: float = MEAN_SPAN_LENGTH,
) -> tuple[int, int]:
  """Tokens to cut a segment to, so that its inputs fill inputs_length.

  Args:
    inputs_length: length of the corrupted inputs, end of sequence included.
    noise_density: share of the tokens to be replaced.
    mean_span_length: of the replaced spans, in tokens.

  Returns:
    (raw tokens in a segment, length of its targets with end of sequence): 128
    gives (141, 29) and T5's 512 gives (568, 114).
  """

  def lengths(raw: int) -> tuple[int, int]:
    noise = int(round(raw * noise_density))
    spans = int(round(noise / mean_span_length))
    return raw - noise + spans + 1, noise + spans + 1

  raw = inputs_length - 1
  while lengths(raw + 1)[0] <= inputs_length:
    raw += 1
  targets_length = lengths(raw)[1]
  if noise_density == 0.5 and targets_length > lengths(raw)[0]:
    return raw - 1, targets_length - 1
  return raw, targets_length


def span_corruption(
  dataset: tf.data.Dataset,
  sequence_length: Mapping[str, int],
  output_features: Mapping[str, seqio.Feature],
  noise_density: float = NOISE_DENSITY,
  mean_span_length: float = MEAN_SPAN_LENGTH,
) -> tf.data.Dataset:
  """seqio preprocessor: documents' tokens to corrupted inputs and targets.

  Args:
    dataset: of {'targets': int32 [tokens]}, documents without end of sequence.
    sequence_length: {'inputs', 'targets'}; decides the length of segments.
    output_features: 'targets' gives the vocabulary.
    noise_density: share of the tokens to be replaced.
    mean_span_length: of the replaced spans, in tokens.

  Returns:
    Dataset of {'inputs', 'targets'} int32 without end of sequence; the last
    segment of each batch of joined documents may be shorter.

  Raises:
    ValueError: if the targets would not fit.
  """
  raw, targets_length = raw_length(
    sequence_length['inputs'], noise_density, mean_span_length
  )
  if sequence_length['targets'] < targets_length:
    raise ValueError(
      f'targets length ({sequence_length["targets"]}) must be at least '
      f'{targets_length} for inputs of {sequence_length["inputs"]}.'
    )
  dataset = _random_chunk(dataset)
  dataset = _join_documents(dataset)
  dataset = _split(dataset, raw)
  vocab_size = output_features['targets'].vocabulary.vocab_size
  return _corrupt(dataset, vocab_size, noise_density, mean_span_length)


def _is_not_empty(example) -> tf.Tensor:
  return tf.size(example['targets']) > 0


def _random_chunk(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """One of a document's consecutive chunks, chosen evenly."""

  @seqio.map_over_dataset(num_seeds=1)
  def choose(example, seed):
    tokens = example['targets']
    _, draw = _stateless_split(seed, 2)
    num_chunks = tf.cast(
      tf.math.ceil(tf.size(tokens) / _MAX_DOCUMENT_TOKENS), tf.int32
    )
    chunk = tf.random.stateless_uniform(
      [], seed=draw, maxval=num_chunks, dtype=tf.int32
    )
    start = chunk * _MAX_DOCUMENT_TOKENS
    return {'targets': tokens[start : start + _MAX_DOCUMENT_TOKENS]}

  return choose(dataset.filter(_is_not_empty))


def _join_documents(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Joins the tokens of 128 documents at a time.

  Padding marks what is not a token, as T5 has it: an id 0 inside a document
  vanishes.
  """
  dataset = dataset.padded_batch(_DOCUMENTS_TO_JOIN)

  def join(batch):
    tokens = tf.reshape(batch['targets'], [-1])
    return {'targets': tf.boolean_mask(tokens, tokens != 0)}

  return dataset.map(join, num_parallel_calls=tf.data.AUTOTUNE)


def _split(dataset: tf.data.Dataset, length: int) -> tf.data.Dataset:
  """Cuts into segments of `length`; the last one has what is left."""

  # T5 takes a seed here without using it; so do we, because seqio deals out
  # seeds in order and the next step's would differ.
  @seqio.map_over_dataset(num_seeds=1)
  def cut(example, seed):
    del seed
    return tf.data.Dataset.from_tensor_slices(example['targets']).batch(length)

  dataset = cut(dataset.filter(_is_not_empty)).flat_map(lambda parts: parts)
  return dataset.map(lambda part: {'targets': part})


def _corrupt(
  dataset: tf.data.Dataset,
  vocab_size: int,
  noise_density: float,
  mean_span_length: float,
) -> tf.data.Dataset:
  @seqio.map_over_dataset(num_seeds=1)
  def corrupt(example, seed):
    tokens = example['targets']
    # Six seeds as in T5, of which the mask takes the first two.
    seeds = _stateless_split(seed, 6)
    mask = random_spans_mask(
      tf.size(tokens), noise_density, mean_span_length, seeds[:2]
    )
    return {
      'inputs': spans_to_sentinels(tokens, mask, vocab_size),
      'targets': spans_to_sentinels(tokens, ~mask, vocab_size),
    }

  return corrupt(dataset)


def random_spans_mask(
  length: tf.Tensor,
  noise_density: float,
  mean_span_length: float,
  seeds: tuple[tf.Tensor, tf.Tensor],
) -> tf.Tensor:
  """Marks the tokens to replace: spans in turn kept and replaced.

  The numbers of replaced tokens and of spans follow from the length; all
  ways to divide tokens into so many spans are equally likely.

  Args:
    length: int32 scalar.
    noise_density: share of the tokens to be replaced.
    mean_span_length: of the replaced spans, in tokens.
    seeds: for the replaced spans and the kept spans, each [2].

  Returns:
    bool [length], False first.
  """
  size = tf.maximum(length, 2)  # one token kept and one replaced at least
  noise = tf.cast(tf.round(tf.cast(size, tf.float32) * noise_density), tf.int32)
  noise = tf.clip_by_value(noise, 1, size - 1)
  num_spans = tf.cast(
    tf.round(tf.cast(noise, tf.float32) / mean_span_length), tf.int32
  )
  num_spans = tf.maximum(num_spans, 1)
  replaced = _random_segments(noise, num_spans, seeds[0])
  kept = _random_segments(size - noise, num_spans, seeds[1])
  lengths = tf.reshape(tf.stack([kept, replaced], axis=1), [-1])
  is_replaced = tf.tile([False, True], [num_spans])
  return tf.repeat(is_replaced, lengths)[:length]


def _random_segments(items, num_segments, seed) -> tf.Tensor:
  """Lengths, each at least 1, of a random division: int32 [num_segments]."""
  is_cut = tf.cast(tf.range(items - 1) < num_segments - 1, tf.int32)
  is_cut = seqio.stateless_shuffle(is_cut, seed)
  segment = tf.concat([[0], tf.cumsum(is_cut)], axis=0)
  return tf.math.bincount(
    segment, minlength=num_segments, maxlength=num_segments
  )


def spans_to_sentinels(
  tokens: tf.Tensor, mask: tf.Tensor, vocab_size: int
) -> tf.Tensor:
  """Replaces each marked span by the next sentinel.

  Args:
    tokens: int [n].
    mask: bool [n].
    vocab_size: the first sentinel is vocab_size - 1; they count down.

  Returns:
    int [n - marked tokens + marked spans].
  """
  before = tf.concat([[False], mask[:-1]], axis=0)
  starts = mask & ~before
  span = tf.cumsum(tf.cast(starts, tokens.dtype))
  tokens = tf.where(starts, vocab_size - span, tokens)
  return tf.boolean_mask(tokens, ~mask | starts)


def _stateless_split(seed: tf.Tensor, num: int) -> list[tf.Tensor]:
  return tf.unstack(tf.random.experimental.stateless_split(seed, num))


def num_segments(num_tokens: int, inputs_length: int) -> int:
  """Examples in so many tokens of text, in one epoch (an estimate)."""
  return math.ceil(num_tokens / raw_length(inputs_length)[0])
