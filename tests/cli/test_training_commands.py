"""train, finetune, evaluate and generate, run as a user would."""

import io
import json
import os
import shutil
import subprocess
import sys

import jax
import pytest

from gqa_flax.checkpoints import t5x_orbax
from gqa_flax.cli import main
from gqa_flax.model import config
from gqa_flax.model import network
from gqa_flax.model import sharding
from gqa_flax.training import optimizer
from gqa_flax.training import state


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  """A tiny multi-head model with the mini model's vocabulary, at step 0."""
  model = network.Transformer(
    config.T5Config(
      vocab_size=4096,
      emb_dim=16,
      num_heads=2,
      head_dim=8,
      mlp_dim=16,
      num_encoder_layers=1,
      num_decoder_layers=1,
      mlp_activations=('gelu', 'linear'),
    )
  )
  mesh = sharding.make_mesh(1, jax.devices()[:1])
  tx = optimizer.adafactor(optimizer.constant())
  folder = tmp_path_factory.mktemp('tiny')
  t5x_orbax.save(
    folder, state.to_checkpoint(state.create(model, tx, mesh, seed=0))
  )
  return str(folder)


@pytest.fixture
def summaries(tmp_path):
  path = tmp_path / 'summaries.jsonl'
  rows = [
    {'text': f'Return the item {i} of the list.', 'summary': f'Item {i}.'}
    for i in range(6)
  ]
  path.write_text(''.join(json.dumps(r) + '\n' for r in rows))
  return str(path)


SMALL = ['--inputs_length=16', '--targets_length=8', '--batch_size=2']


def finetune(checkpoint, train, output, *flags):
  return main.main(
    [
      'finetune',
      f'--checkpoint={checkpoint}',
      '--task=summarization',
      f'--train={train}',
      f'--dev={train}',
      f'--output={output}',
      '--steps=2',
      *SMALL,
      *flags,
    ]
  )


def fails(capsys, arguments, *parts):
  """The command exits with 2 and one line that holds the parts."""
  try:
    code = main.main(arguments)
  except SystemExit as error:
    code = error.code
  assert code == 2
  lines = [
    line
    for line in capsys.readouterr().err.splitlines()
    if line.startswith('gqa-flax: error:')
  ]
  assert len(lines) == 1
  assert 'In call to configurable' not in lines[0]
  for part in parts:
    assert part in lines[0]


def test_finetune_on_own_files_then_evaluate(
  checkpoint, summaries, tmp_path, capsys
):
  output = tmp_path / 'run'
  assert finetune(checkpoint, summaries, output, '--json') == 0
  record = json.loads(capsys.readouterr().out)
  assert record['cross_entropy'] > 0
  assert t5x_orbax.steps(output) == [2]

  predictions = tmp_path / 'p.jsonl'
  arguments = [
    'evaluate',
    f'--checkpoint={output}',
    '--task=summarization',
    f'--dev={summaries}',
    f'--predictions={predictions}',
    '--max_examples=3',
    '--json',
    *SMALL,
  ]
  assert main.main(arguments) == 0
  (metrics,) = json.loads(capsys.readouterr().out).values()
  assert metrics['examples'] == 3
  assert {'rouge1', 'rouge2', 'rougeLsum'} <= metrics.keys()
  assert len(predictions.read_text().splitlines()) == 3


def test_finetune_in_one_line_says_where_it_writes(
  checkpoint, summaries, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  arguments = [
    'finetune',
    f'--checkpoint={checkpoint}',
    f'--train={summaries}',
    f'--dev={summaries}',
    '--task=summarization',
  ]
  # What only shortens it: a step of a small batch.
  assert main.main([*arguments, '--steps=1', '--batch_size=2']) == 0
  assert t5x_orbax.steps(tmp_path / 'runs' / 'finetuned') == [1]


def test_other_files_into_the_same_folder_are_refused(
  checkpoint, summaries, tmp_path, capsys
):
  output = tmp_path / 'run'
  assert finetune(checkpoint, summaries, output) == 0
  other = tmp_path / 'other.jsonl'
  other.write_text('{"text": "Another text.", "summary": "Another."}\n' * 4)
  capsys.readouterr()
  assert finetune(checkpoint, other, output) == 2
  assert 'choose another output folder' in capsys.readouterr().err


def test_long_examples_are_said_once(checkpoint, summaries, tmp_path, caplog):
  rows = [{'text': 'word ' * 40, 'summary': 'Words.'}] * 4
  path = tmp_path / 'long.jsonl'
  path.write_text(''.join(json.dumps(r) + '\n' for r in rows))
  finetune(checkpoint, path, tmp_path / 'run')
  said = [r for r in caplog.records if 'Truncated' in r.getMessage()]
  assert len(said) == 1
  assert '4 inputs (limit 16 tokens)' in said[0].getMessage()


@pytest.mark.parametrize(
  'arguments, lost',
  [
    (['evaluate', '--dev={data}', '--predictions={output}/p.jsonl'], 'p.jsonl'),
    (
      ['finetune', '--train={data}', '--dev={data}', '--output={output}'],
      'checkpoint_1',
    ),
  ],
)
def test_full_disk_is_one_line(
  checkpoint, summaries, tmp_path, arguments, lost
):
  output = tmp_path / 'out'
  steps = ['--steps=1'] if arguments[0] == 'finetune' else []
  flags = [a.format(data=summaries, output=output) for a in arguments]
  done = subprocess.run(
    [sys.executable, '-c', _SMALL_FILES_ONLY, *flags, *SMALL, *steps]
    + [f'--checkpoint={checkpoint}', '--task=summarization'],
    capture_output=True,
    text=True,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
  )
  assert done.returncode == 2, done.stderr
  (line,) = [x for x in done.stderr.splitlines() if 'gqa-flax: error:' in x]
  assert 'File too large' in line
  assert 'Traceback' not in done.stderr
  assert not list(output.glob(f'{lost}*'))


# Files may hold 200 bytes: the copy of the data in the cache is made before.
_SMALL_FILES_ONLY = """
import resource, sys
from gqa_flax.cli import finetune, main
register = finetune.register_files

def register_files(args, train):
  name = register(args, train)
  resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
  return name

finetune.register_files = register_files
sys.exit(main.main(sys.argv[1:]))
"""


def test_gin_binding_wins_over_the_file(checkpoint, summaries, tmp_path):
  output = tmp_path / 'run'
  assert finetune(checkpoint, summaries, output, '--gin.RANDOM_SEED=7') == 0
  assert t5x_orbax.read_sidecar(output / 'checkpoint_2')['seed'] == 7


def test_generate_reads_arguments_file_and_standard_input(
  checkpoint, tmp_path, capsys, monkeypatch
):
  base = ['generate', f'--checkpoint={checkpoint}', '--max_length=4']
  assert main.main([*base, 'one', 'two']) == 0
  from_arguments = capsys.readouterr().out
  assert len(from_arguments.splitlines()) == 2

  path = tmp_path / 'in.txt'
  path.write_text('one\n\ntwo\n')
  assert main.main([*base, f'--file={path}']) == 0
  one, two = from_arguments.splitlines()
  assert capsys.readouterr().out.splitlines() == [one, '', two]

  monkeypatch.setattr('sys.stdin', io.StringIO('one\ntwo\n'))
  assert main.main(base) == 0
  assert capsys.readouterr().out == from_arguments

  assert main.main([*base, '--beams=2', 'one']) == 0
  assert len(capsys.readouterr().out.splitlines()) == 1


def test_generate_says_once_that_long_inputs_are_cut(
  checkpoint, capsys, caplog
):
  main.main(
    ['generate', f'--checkpoint={checkpoint}', '--max_length=2']
    + ['--max_input_length=4', '--batch_size=1', 'word ' * 9, 'word ' * 9]
  )
  said = [r for r in caplog.records if 'are cut' in r.getMessage()]
  assert len(said) == 1


def test_checkpoint_folder_of_another_name(checkpoint, summaries, tmp_path):
  renamed = tmp_path / 'best'
  shutil.copytree(f'{checkpoint}/checkpoint_0', renamed)
  assert finetune(renamed, summaries, tmp_path / 'run') == 0
  assert t5x_orbax.steps(tmp_path / 'run') == [2]


def test_line_that_is_not_json_names_file_and_line(
  checkpoint, summaries, tmp_path, capsys
):
  with open(summaries, 'a') as f:
    f.write('{"text": \n')
  output = tmp_path / 'run'
  fails(
    capsys,
    [
      'finetune',
      f'--checkpoint={checkpoint}',
      '--task=summarization',
      f'--train={summaries}',
      f'--dev={summaries}',
      f'--output={output}',
    ],
    f'{summaries}:7',
    'not JSON',
  )
  assert not output.exists()


def test_empty_input_is_refused(checkpoint, capsys, monkeypatch):
  monkeypatch.setattr('sys.stdin', io.StringIO('\n'))
  fails(capsys, ['generate', f'--checkpoint={checkpoint}'], 'No input')


def test_vocabulary_that_does_not_fit_is_refused(tmp_path, capsys, checkpoint):
  state_ = t5x_orbax.restore(checkpoint)
  target = state_['target']
  target['token_embedder']['embedding'] = target['token_embedder']['embedding'][
    :3000
  ]
  kernel = target['decoder']['logits_dense']['kernel'][:, :3000]
  target['decoder']['logits_dense']['kernel'] = kernel
  t5x_orbax.save(
    tmp_path, {'target': target, 'state': {'step': state_['state']['step']}}
  )
  fails(
    capsys,
    ['generate', f'--checkpoint={tmp_path}', 'text'],
    '4096',
    '3000',
  )


@pytest.mark.parametrize(
  'arguments, part',
  [
    (['evaluate', '--task=gqa_flax_messages_en_de'], 'CHECKPOINT_PATH'),
    (['train', '--alpha=0.05'], '--alpha needs --checkpoint'),
    (['train', '--output=x'], 'TRAIN_STEPS'),
    (['finetune', '--train=x.jsonl'], '--train and --dev go together'),
    (['finetune', '--dev=x.jsonl'], '--train and --dev go together'),
    (['finetune', '--task=x', '--vocabulary=v'], 'a registered task has one'),
    (['generate', '--checkpoint=mini', '--top_p=2', 'x'], 'top_p (2.0) must'),
    (['generate', '--checkpoint=mini', '--max_length=0', 'x'], 'must be at'),
    (['generate', '--checkpoint=mini', '--file=/'], 'Is a directory'),
    (
      ['generate', '--checkpoint=mini', '--gin_file=variants/mqa.gin', 'x'],
      'num_kv_heads (1) is asked for',
    ),
    (
      ['evaluate', '--checkpoint=mini', '--max_examples=0']
      + ['--task=gqa_flax_messages_en_de'],
      'max_examples (0) must be at least 1',
    ),
    (
      ['evaluate', '--checkpoint=mini', '--split=test']
      + ['--task=gqa_flax_messages_en_de'],
      "no split 'test'",
    ),
    (
      ['evaluate', '--checkpoint=mini', '--shuffled_sources']
      + ['--task=gqa_flax_messages_en_de'],
      'shuffled_sources goes with',
    ),
    (
      ['evaluate', '--checkpoint=mini', '--predictions=p.jsonl']
      + ['--task=gqa_flax_docs_span_corruption'],
      'no predictions to write',
    ),
    (
      ['train', '--gin_file=models/t5_1_1_small.gin', '--steps=1']
      + ['--gin_file=variants/gqa4.gin', '--output=x']
      + ['--gin_file=tasks/docs_span_corruption.gin']
      + ['--gin_file=runs/local/mini_schedule.gin'],
      'num_heads (6) must be a multiple of num_kv_heads (4);',
    ),
    (
      ['train', '--gin_file=models/t5_1_1_small.gin', '--steps=1']
      + ['--gin_file=variants/mha.gin', '--output=x']
      + ['--gin_file=tasks/docs_span_corruption.gin']
      + ['--gin_file=runs/local/mini_schedule.gin'],
      'has 4096 ids, but the model has 32128',
    ),
    (['generate', '--checkpoint=/nowhere', 'x'], '/nowhere'),
    (['train', '--no_such_flag'], '--no_such_flag'),
    (['train', '--gin_file=no_such.gin'], 'no_such.gin'),
    (['generate', '--beams=2', '--temperature=1', 'x'], 'exclude each other'),
  ],
)
def test_bad_flags_are_one_line(capsys, arguments, part, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  fails(capsys, arguments, part)
  assert not any(tmp_path.iterdir())


def test_unknown_task_is_one_line(checkpoint, capsys):
  fails(
    capsys,
    ['evaluate', f'--checkpoint={checkpoint}', '--task=nonsense'],
    'nonsense',
  )


def test_checkpoint_of_another_size_than_the_gin_says_is_refused(
  checkpoint, capsys
):
  fails(
    capsys,
    [
      'evaluate',
      f'--checkpoint={checkpoint}',
      '--task=gqa_flax_messages_en_de',
      '--gin_file=models/t5_1_1_mini.gin',
      '--gin_file=variants/mqa.gin',
    ],
    'emb_dim',
  )
