"""gqa-flax inspect: what a checkpoint, or the corpus, holds."""

import argparse

from gqa_flax.cli import arguments
from gqa_flax.cli import terminal


def add_parser(subparsers):
  parser = subparsers.add_parser(
    'inspect',
    help='show what a checkpoint, or the corpus, holds',
    description='Prints the tensors of a checkpoint, its model, step and'
    ' lineage; reads no weights. For `corpus`, prints where the mini tasks'
    ' have their text from, and how much; builds it on first use.',
  )
  parser.add_argument(
    'path',
    metavar='PATH',
    help='checkpoint_N, a folder of them (latest), or the word corpus',
  )
  arguments.add_json(parser)
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  if args.path == 'corpus':
    return _show_corpus(args)
  terminal.use_cpu_only()
  from gqa_flax.checkpoints import summary

  record = summary.summarize(args.path)
  if args.json:
    terminal.print_record(record)
    return 0
  print(record['path'])
  print(_model(record))
  print(
    f'step {record["step"]}; {record["parameters"]:,} parameters;'
    f' {terminal.size(record["bytes"])} uncompressed'
  )
  for made in record['lineage']:
    print(_origin(made))
  print()
  for row in _table(record['tensors']):
    print(row)
  return 0


def _show_corpus(args) -> int:
  from gqa_flax.cli import gin_run

  gin_run.quiet_tensorflow()
  from gqa_flax.data import corpus

  described = corpus.statistics('full')
  if args.json:
    terminal.print_record(described)
  else:
    print(corpus.table(described))
  return 0


def _model(record) -> str:
  model = record['model']
  if model is None:
    return f'not a T5 that can be converted: {record["model_problem"]}'
  return (
    f'T5: {model["num_encoder_layers"]} + {model["num_decoder_layers"]} layers,'
    f' embed {model["emb_dim"]}, MLP {model["mlp_dim"]}, {model["num_heads"]}'
    f' heads of {model["head_dim"]}, {model["num_kv_heads"]} key/value heads in'
    f' the decoder, vocabulary {model["vocab_size"]}'
  )


def _origin(made) -> str:
  did, source = made['conversion'], made['source']
  return (
    f'converted: {did["num_kv_heads_before"]} -> {did["num_kv_heads"]}'
    f' key/value heads, method {did["method"]}, optimizer slots'
    f' {did["optimizer"]["policy"]}, from {source["path"]}'
    f' (sha256 {source["sha256"][:12]})'
  )


def _table(tensors) -> list[str]:
  rows = [('tensor', 'shape', 'dtype', 'bytes')]
  rows += [
    (t['path'], str(t['shape']), t['dtype'], f'{t["bytes"]:,}') for t in tensors
  ]
  width = [max(len(row[i]) for row in rows) for i in range(4)]
  return [
    f'{row[0]:{width[0]}}  {row[1]:{width[1]}}  {row[2]:{width[2]}}'
    f'  {row[3]:>{width[3]}}'
    for row in rows
  ]
