"""Decoding a task's examples and scoring them with the task's own metrics."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import json
import os
import pathlib

from absl import logging
import jax
import numpy as np
import seqio
import tqdm

from gqa_flax.data import metrics
from gqa_flax.model import decoding
from gqa_flax.model import network
from gqa_flax.training import input_pipeline

_SHORTEST_BUCKET = 32


@dataclasses.dataclass
class Example:
  """One example to decode.

  Attributes:
    index: its place in the split.
    tokens: [n] integers, the input, cut to the longest length.
    fields: of the seqio example, for the task's postprocessor.
  """

  index: int
  tokens: np.ndarray
  fields: Mapping[str, np.ndarray]


def evaluate_task(
  model: network.Transformer,
  params,
  task_name: str,
  *,
  sequence_length: Mapping[str, int],
  batch_size: int = 32,
  split: str = 'validation',
  max_examples: int | None = None,
  method: decoding.Sampling | decoding.BeamSearch = decoding.Sampling(),
  predictions_path: str | os.PathLike | None = None,
  seed: int = 0,
) -> dict[str, float]:
  """Decodes a split and scores it.

  Args:
    model: the network.
    params: its parameters.
    task_name: a seqio task (not a mixture: see `tasks_of`) with metrics.
    sequence_length: {'inputs': s, 'targets': t}: longer inputs are cut, and
      said so once; t tokens are decoded at most.
    batch_size: examples in a batch.
    split: of the task.
    max_examples: the first so many; None for all.
    method: of decoding; greedy by default, as the paper.
    predictions_path: a JSON line an example is written there: task, index,
      inputs, references, prediction, scores.
    seed: for sampling.

  Returns:
    The metrics, in per cent, and `examples`.
  """
  task = seqio.get_mixture_or_task(task_name)
  examples = read_examples(task, split, sequence_length['inputs'], max_examples)
  predictions = predict(
    model,
    params,
    [e.tokens for e in examples],
    vocabulary=task.output_features['targets'].vocabulary,
    max_decode_length=sequence_length['targets'],
    batch_size=batch_size,
    method=method,
    seed=seed,
    description=f'decode {task_name}',
  )
  references = [_reference(task, e) for e in examples]
  predictions = [
    _postprocess(task, prediction, example, is_target=False)
    for prediction, example in zip(predictions, examples)
  ]
  result, scores = {}, {}
  for metric in task.metric_fns:
    result |= metric(references, predictions)
    scores |= metrics.per_example(metric)(references, predictions)
  if predictions_path is not None:
    _write(
      predictions_path, task_name, examples, references, predictions, scores
    )
  return {k: float(v) for k, v in result.items()} | {'examples': len(examples)}


def tasks_of(name: str) -> list[str]:
  """Names of `input_pipeline.tasks_of`."""
  return [task.name for task in input_pipeline.tasks_of(name)]


def read_examples(
  task: seqio.Task,
  split: str,
  max_input_length: int,
  max_examples: int | None = None,
) -> list[Example]:
  """The first examples of a split, in its order; long inputs are cut."""
  input_pipeline.check_split(task.name, split)
  dataset = task.get_dataset(
    sequence_length=None, split=split, shuffle=False, num_epochs=1
  )
  if max_examples is not None:
    dataset = dataset.take(max_examples)
  examples, cut = [], 0
  for index, fields in enumerate(dataset.as_numpy_iterator()):
    tokens = fields['inputs']
    if len(tokens) > max_input_length:
      cut += 1
      # The end-of-sequence stays.
      tokens = np.append(tokens[: max_input_length - 1], tokens[-1])
    examples.append(Example(index, tokens, fields))
  if cut:
    logging.warning(
      '%s: %d of %d inputs are longer than %d tokens and were cut.',
      task.name,
      cut,
      len(examples),
      max_input_length,
    )
  return examples


def predict(
  model: network.Transformer,
  params,
  inputs: Sequence[np.ndarray],
  *,
  vocabulary: seqio.Vocabulary,
  max_decode_length: int,
  batch_size: int = 32,
  method: decoding.Sampling | decoding.BeamSearch = decoding.Sampling(),
  seed: int = 0,
  description: str | None = 'decode',
) -> list[str]:
  """Decoded texts, in the order of the inputs.

  Inputs are batched with others of like length; each bucket of lengths
  (doubling from 32) is compiled once.

  Args:
    model: the network.
    params: its parameters.
    inputs: token ids of each, ended by end-of-sequence.
    vocabulary: turns tokens into text.
    max_decode_length: most tokens to decode.
    batch_size: rows in a batch; the last of a bucket is padded.
    method: of decoding.
    seed: for sampling.
    description: of the progress bar; None for no bar.
  """
  texts = [''] * len(inputs)
  progress = tqdm.tqdm(
    total=len(inputs),
    desc=description,
    unit='example',
    disable=description is None,
  )
  with progress:
    for rows, tokens in bucketed(inputs, batch_size):
      rng = jax.random.fold_in(jax.random.key(seed), rows[0])
      decoded, _ = decoding.generate(
        model,
        params,
        tokens,
        max_decode_length=max_decode_length,
        method=method,
        rng=rng,
      )
      if isinstance(method, decoding.BeamSearch):
        decoded = decoded[:, 0]
      for row, ids in zip(rows, np.asarray(decoded)):
        texts[row] = decode_text(vocabulary, ids)
      progress.update(len(rows))
  return texts


def decode_text(vocabulary: seqio.Vocabulary, ids: np.ndarray) -> str:
  """Text up to the end-of-sequence."""
  ids = ids.tolist()
  if decoding.EOS_ID in ids:
    ids = ids[: ids.index(decoding.EOS_ID)]
  return vocabulary.decode(ids)


def bucketed(
  inputs: Sequence[np.ndarray], batch_size: int
) -> Iterator[tuple[list[int], np.ndarray]]:
  """(indices, tokens [batch_size, bucket]) of inputs of like length.

  Rows beyond the indices are copies of the first: they end no later than it.
  """
  buckets = {}
  for index in sorted(range(len(inputs)), key=lambda i: len(inputs[i])):
    length = _SHORTEST_BUCKET
    while length < len(inputs[index]):
      length *= 2
    buckets.setdefault(length, []).append(index)
  for length, indices in buckets.items():
    for start in range(0, len(indices), batch_size):
      rows = indices[start : start + batch_size]
      tokens = np.zeros((batch_size, length), np.int32)
      for i in range(batch_size):
        x = inputs[rows[i] if i < len(rows) else rows[0]]
        tokens[i, : len(x)] = x
      yield rows, tokens


def _reference(task: seqio.Task, example: Example):
  """What metrics compare with: text, or what the postprocessor makes of it."""
  text = example.fields.get('targets_pretokenized')
  if text is None:
    vocabulary = task.output_features['targets'].vocabulary
    text = decode_text(vocabulary, example.fields['targets'])
  elif isinstance(text, bytes):
    text = text.decode('utf-8')
  return _postprocess(task, text, example, is_target=True)


def _postprocess(task: seqio.Task, text: str, example: Example, is_target):
  return task.postprocess_fn(text, example=example.fields, is_target=is_target)


def _write(path, task_name, examples, references, predictions, scores):
  """Writes all lines under a temporary name, then renames."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(path.name + '.tmp')
  try:
    with temporary.open('w', encoding='utf-8') as f:
      for i, example in enumerate(examples):
        source = example.fields.get('inputs_pretokenized', b'')
        if isinstance(source, bytes):
          source = source.decode('utf-8')
        record = {
          'task': task_name,
          'index': example.index,
          'inputs': source,
          'references': references[i],
          'prediction': predictions[i],
          'scores': {name: values[i] for name, values in scores.items()},
        }
        f.write(json.dumps(record, ensure_ascii=False) + '\n')
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)
