"""train, finetune, evaluate and generate, run as a user would."""

import io
import json

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
  assert capsys.readouterr().out == from_arguments

  monkeypatch.setattr('sys.stdin', io.StringIO('one\ntwo\n'))
  assert main.main(base) == 0
  assert capsys.readouterr().out == from_arguments

  assert main.main([*base, '--beams=2', 'one']) == 0
  assert len(capsys.readouterr().out.splitlines()) == 1


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
    (['finetune', '--train=x.jsonl'], '--train needs --dev'),
    (['generate', '--checkpoint=/nowhere', 'x'], '/nowhere'),
    (['train', '--no_such_flag'], '--no_such_flag'),
    (['train', '--gin_file=no_such.gin'], 'no_such.gin'),
    (['generate', '--beams=2', '--temperature=1', 'x'], 'exclude each other'),
  ],
)
def test_bad_flags_are_one_line(capsys, arguments, part):
  fails(capsys, arguments, part)


def test_unknown_task_is_one_line(checkpoint, capsys):
  fails(
    capsys,
    ['evaluate', f'--checkpoint={checkpoint}', '--task=nonsense'],
    'nonsense',
  )


def test_checkpoint_of_more_heads_than_the_gin_says_is_refused(
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
