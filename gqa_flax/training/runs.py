"""What the commands evaluate and generate run, bound by gin."""

from collections.abc import Iterable, Iterator, Mapping
import itertools
import os

from absl import logging
import numpy as np
import seqio

from gqa_flax import paths
from gqa_flax.data import vocabularies
from gqa_flax.errors import UserError
from gqa_flax.model import decoding
from gqa_flax.model import network
from gqa_flax.training import evaluation
from gqa_flax.training import models
from gqa_flax.training import prediction


def evaluate(
  model: network.Transformer,
  checkpoint: str,
  task: str,
  sequence_length: Mapping[str, int],
  batch_size: int = 32,
  split: str = 'validation',
  max_examples: int | None = None,
  method: decoding.Sampling | decoding.BeamSearch = decoding.Sampling(),
  predictions_path: str | None = None,
  shuffled_sources: bool = False,
) -> dict[str, dict[str, float]]:
  """Scores a checkpoint on a task, or on each task of a mixture.

  A task with metrics is decoded and scored; one without (span corruption) has
  its held-out loss measured.

  Args:
    model: the network.
    checkpoint: path of its parameters.
    task: seqio task or mixture.
    sequence_length: {'inputs': s, 'targets': t}.
    batch_size: examples in a batch.
    split: of the task.
    max_examples: the first so many; None for all.
    method: of decoding.
    predictions_path: JSON lines of the predictions; with a mixture, the name
      of the task is put before the extension.
    shuffled_sources: see `evaluation.held_out_loss`.

  Returns:
    {task: metrics}.
  """
  if max_examples is not None and max_examples < 1:
    raise UserError(f'max_examples ({max_examples}) must be at least 1.')
  names = prediction.tasks_of(task)
  _check_what_is_asked(names, predictions_path, shuffled_sources)
  params = models.restore_params(model, checkpoint)
  results = {}
  for name in names:
    found = seqio.get_mixture_or_task(name)
    vocabularies.check_vocabulary(
      found.output_features['targets'].vocabulary, model.config.vocab_size
    )
    if not found.metric_fns:
      max_batches = (
        None if max_examples is None else -(-max_examples // batch_size)
      )
      results[name] = evaluation.held_out_loss(
        model,
        params,
        name,
        sequence_length,
        batch_size,
        split=split,
        max_batches=max_batches,
        shuffled_sources=shuffled_sources,
      )
      continue
    path = predictions_path
    if path is not None and len(names) > 1:
      root, extension = os.path.splitext(path)
      path = f'{root}.{name}{extension}'
    results[name] = prediction.evaluate_task(
      model,
      params,
      name,
      sequence_length=sequence_length,
      batch_size=batch_size,
      split=split,
      max_examples=max_examples,
      method=method,
      predictions_path=path,
    )
  return results


def _check_what_is_asked(names, predictions_path, shuffled_sources) -> None:
  """Refuses what a task would silently leave out."""
  for name in names:
    scored = bool(seqio.get_mixture_or_task(name).metric_fns)
    if scored and shuffled_sources:
      raise UserError(
        f'{name} is decoded and scored: shuffled_sources goes with a task whose'
        ' held-out loss is measured.'
      )
    if not scored and predictions_path is not None:
      raise UserError(
        f'{name} has no metrics, so there are no predictions to write.'
      )


def generate(
  texts: Iterable[str],
  model: network.Transformer,
  checkpoint: str,
  vocabulary_path: str | None = None,
  max_input_length: int = 512,
  max_decode_length: int = 128,
  batch_size: int = 8,
  method: decoding.Sampling | decoding.BeamSearch = decoding.Sampling(),
  seed: int = 0,
) -> Iterator[str]:
  """Outputs of a model, streamed batch by batch, in the order of the texts.

  A blank text has a blank output, so that lines stay beside their inputs.

  Args:
    texts: one input each; read as they are needed.
    model: the network.
    checkpoint: path of its parameters.
    vocabulary_path: SentencePiece model; None for the mini model's.
    max_input_length: tokens of an input that are read.
    max_decode_length: most tokens to decode.
    batch_size: inputs decoded together.
    method: of decoding.
    seed: for sampling.

  Raises:
    UserError: no text at all, a length below 1, or a vocabulary that does not
      fit the model.
  """
  for name, value in (
    ('max_input_length', max_input_length),
    ('max_decode_length', max_decode_length),
    ('batch_size', batch_size),
  ):
    if value < 1:
      raise UserError(f'{name} ({value}) must be at least 1.')
  vocabulary = vocabularies.load(
    vocabulary_path or paths.mini_vocabulary_path()
  )
  vocabularies.check_vocabulary(vocabulary, model.config.vocab_size)
  params = models.restore_params(model, checkpoint)
  texts = iter(texts)
  held, any_text, cut = [], False, False
  while batch := list(itertools.islice(texts, batch_size)):
    rows = [i for i, text in enumerate(batch) if text.strip()]
    encoded = [vocabulary.encode(batch[i]) for i in rows]
    if not cut and any(len(ids) >= max_input_length for ids in encoded):
      cut = True
      logging.warning(
        'Inputs of more than %d tokens are cut there.', max_input_length
      )
    outputs = [''] * len(batch)
    found = prediction.predict(
      model,
      params,
      [
        np.asarray([*ids[: max_input_length - 1], decoding.EOS_ID], np.int32)
        for ids in encoded
      ],
      vocabulary=vocabulary,
      max_decode_length=max_decode_length,
      batch_size=batch_size,
      method=method,
      seed=seed,
      description=None,
    )
    for i, output in zip(rows, found, strict=True):
      outputs[i] = output
    held += outputs
    any_text = any_text or bool(rows)
    if any_text:
      yield from held
      held = []
    seed += 1
  if not any_text:
    raise UserError('No input: give text as arguments, a file or a pipe.')
