"""The whole study in a minute: a tiny model, a tiny corpus, a few steps.

Also a program, to be killed: python -m tests.study.tiny OUTPUT CHECKPOINT WHERE
"""

import dataclasses
import os
import pathlib
import signal
import sys

import jax.numpy as jnp
import numpy as np

from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.data import corpus
from gqa_flax.measure import timing
from gqa_flax.model import config
from gqa_flax.model import network
from gqa_flax.model import sharding
from gqa_flax.study import experiments
from gqa_flax.study import record
from gqa_flax.study import runner
from gqa_flax.training import metric_log
from gqa_flax.training import optimizer
from gqa_flax.training import state

STEP = 8

PRESET = experiments.Preset(
  name='tiny',
  subset='small',
  groups=(1,),
  methods=('mean',),
  uptraining=experiments.Uptraining(
    alphas=(0.0, 0.5),
    batch_size=4,
    inputs=32,
    targets=8,
    loss_normalizing_factor=32,
    checkpoint_period=2,
    eval_batches=2,
  ),
  finetuning=experiments.Finetuning(
    steps=4,
    batch_size=4,
    inputs=32,
    targets=8,
    pack=False,
    checkpoint_period=2,
  ),
  evaluation=experiments.Evaluation(
    select_examples=4, examples=6, batch_size=4, resamples=50
  ),
  shapes=(timing.Shape(2, 8, 4),),
  rounds=2,
)

_WORDS = (
  'array axis value shape type name index key function returns given list '
  'number of the a first last default optional object file path string'
).split()


def _text(rng, words):
  return ' '.join(rng.choice(_WORDS, words)) + '.'


def make_corpus(patch) -> None:
  """The corpus's small part, in $GQA_FLAX_CACHE, of random sentences."""
  rng = np.random.default_rng(0)
  make = {
    'documents': lambda: {'text': ' '.join(_text(rng, 12) for _ in range(20))},
    'summarization': lambda: {
      'inputs': f'{_text(rng, 8)} {_text(rng, 8)}',
      'targets': _text(rng, 4),
    },
    'question_answering': lambda: {
      'question': f'what is parameter {rng.choice(_WORDS)}?',
      'context': _text(rng, 15),
      'answers': [_text(rng, 3), _text(rng, 4)],
    },
    'translation': lambda: {'en': _text(rng, 4), 'de': _text(rng, 4)},
  }
  records = {
    (task, split): [make[task]() for _ in range(n)]
    for task in corpus.TASKS
    for split, n in (('train', 40), ('validation', 8))
  }
  patch.setattr(corpus, 'collect', lambda subset: (records, {}))
  corpus.build('small')


def make_checkpoint(folder, num_kv_heads=None) -> str:
  """A multi-head model with the mini vocabulary, fresh, at step 8."""
  model = network.Transformer(
    config.T5Config(
      vocab_size=4096,
      emb_dim=16,
      num_heads=2,
      num_kv_heads=num_kv_heads,
      head_dim=8,
      mlp_dim=16,
      num_encoder_layers=1,
      num_decoder_layers=1,
      mlp_activations=('gelu', 'linear'),
      dropout_rate=0.0,
    )
  )
  tx = optimizer.adafactor(1e-3)
  fresh = state.create(model, tx, sharding.make_mesh(), seed=0)
  fresh = dataclasses.replace(fresh, step=jnp.asarray(STEP, jnp.int32))
  return str(t5x_orbax.save(folder, state.to_checkpoint(fresh)))


def study(output, checkpoint, say=lambda line: None) -> record.Run:
  """What `gqa-flax reproduce` does, without its report."""
  output = pathlib.Path(output)
  with runner.claimed(output, PRESET):
    facts = runner.read_facts(PRESET, checkpoint)
    return runner.run(PRESET, facts, output, say)


def stop_at(where: str, stop, patch) -> None:
  """Calls `stop` at a point of the run.

  Args:
    where: 'save:2' before the second checkpoint is written, 'saved:2' after
      it, 'log:3' before the third line of a metrics log, 'record:7' before
      the seventh record or part of one is.
    stop: called there.
    patch: (object, name, value), as pytest's setattr.
  """
  what, count = where.split(':')
  target, name = {
    'save': (t5x_orbax, 'save'),
    'saved': (t5x_orbax, 'save'),
    'log': (metric_log.MetricLog, 'write'),
    'record': (record, 'write_json'),
  }[what]
  original = getattr(target, name)
  calls = []

  def wrapped(*args, **kwargs):
    calls.append(1)
    due = len(calls) == int(count)
    if due and what != 'saved':
      stop()
    result = original(*args, **kwargs)
    if due and what == 'saved':
      stop()
    return result

  patch(target, name, wrapped)


def main(output: str, checkpoint: str, where: str) -> None:
  def kill():
    os.kill(os.getpid(), signal.SIGKILL)

  stop_at(where, kill, setattr)
  study(output, checkpoint, lambda line: print(line, flush=True))


if __name__ == '__main__':
  main(*sys.argv[1:])
