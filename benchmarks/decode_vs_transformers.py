"""Time of decoding for G = H, a middle G and 1, beside transformers' T5.

  make test-oracles            # once: installs torch and transformers
  python -m benchmarks.decode_vs_transformers

One process, the same random weights (for fewer K/V heads mean-pooled), greedy,
a fixed output length with the end-of-sequence ignored. Encoding is timed
apart; compilation and a warm-up run are outside the clock. All are timed in
turn within each round, in rotating order. transformers is timed twice:
`generate`, as it is used, and a bare loop over its decoder with its cache.
Our cross-attention keys and values are projected in encoding, those of
transformers in its first step of decoding.

Writes benchmarks/records/decode_vs_transformers_b{batch}_s{input}.json.
Run it on an idle machine.
"""

import argparse
from collections.abc import Callable
import functools
import importlib.metadata
import json
import os
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

import gqa_flax
from gqa_flax.conversion import methods
from gqa_flax.measure import device
from gqa_flax.measure import timing
from gqa_flax.model import decoding
from gqa_flax.model import network
from tests.oracles import goldens
from tests.oracles import hf_models

RECORDS = pathlib.Path(__file__).resolve().parent / 'records'
NUM_HEADS = 8
KV_HEADS = (8, 2, 1)
# The shipped model's shape.
MINI = hf_models.Spec(
  'mini',
  vocab_size=4096,
  d_model=256,
  d_kv=32,
  num_heads=NUM_HEADS,
  num_kv_heads=NUM_HEADS,
  d_ff=704,
  encoder_layers=3,
  decoder_layers=3,
)
# Batch and input length.
SHAPES = ((8, 512), (16, 2048))
# Sources encoded at once: logits of 16 x 8 x 2048 x 2048 would take 2 GiB.
MAX_ENCODED_TOKENS = 8192

# A run: encode() -> state, decode(state) -> tokens [b, output_length].
Run = tuple[Callable, Callable]


def main():
  args = parse_arguments()
  torch.set_num_threads(device.usable_cores())
  theirs = hf_models.build(MINI)
  theirs.generation_config.eos_token_id = None  # Ignores the end.
  for batch_size, input_length in args.shapes:
    shape = timing.Shape(
      batch_size,
      input_length,
      args.output_length,
      max(1, min(batch_size, MAX_ENCODED_TOKENS // input_length)),
    )
    record = measure(theirs, shape, args.rounds)
    name = f'decode_vs_transformers_b{batch_size}_s{input_length}.json'
    path = args.output / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + '\n')
    show(record)
    print(f'wrote {path}')


def parse_arguments():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--output_length', type=int, default=64)
  parser.add_argument(
    '--shapes',
    nargs='+',
    type=lambda text: tuple(int(n) for n in text.split('x')),
    default=SHAPES,
    metavar='BATCHxINPUT',
  )
  parser.add_argument('--output', type=pathlib.Path, default=RECORDS)
  return parser.parse_args()


def measure(theirs, shape: timing.Shape, rounds: int) -> dict:
  """The record of one shape."""
  load = os.getloadavg()[0]
  rng = np.random.default_rng(0)
  size = (shape.batch_size, shape.input_length)
  inputs = rng.integers(2, MINI.vocab_size, size, np.int32)
  runs = our_runs(theirs, inputs, shape) | their_runs(theirs, inputs, shape)
  tokens = {name: warm_up(run) for name, run in runs.items()}
  seconds = alternate(runs, rounds)
  results = {
    name: timing.summarize(measured, shape)
    for name, measured in seconds.items()
  }
  reference = tokens[f'ours_g{NUM_HEADS}']
  step = {
    name: r['decode_ms_per_step']['median'] for name, r in results.items()
  }
  mha = step[f'ours_g{NUM_HEADS}']
  return {
    'what': 'greedy decoding, end-of-sequence ignored, encoding apart',
    'model': {'num_heads': NUM_HEADS, 'dtype': 'float32'} | model_shape(),
    'shape': {
      'batch_size': shape.batch_size,
      'input_length': shape.input_length,
      'output_length': shape.output_length,
      'encode_batch_size': shape.encode_rows,
    },
    'device': device.describe(),
    'load_before': round(load, 2),
    'torch_threads': torch.get_num_threads(),
    'versions': {
      name: importlib.metadata.version(name)
      for name in ('jax', 'jaxlib', 'flax', 'torch', 'transformers')
    }
    | {'gqa_flax': gqa_flax.__version__},
    'n': rounds,
    'results': results,
    'speedup_over_transformers_generate': {
      name: step['transformers_generate'] / x for name, x in step.items()
    },
    'speedup_over_g_h': {name: mha / x for name, x in step.items()},
    'tokens_equal_to_g_h': {
      name: float(np.mean(np.asarray(x) == np.asarray(reference)))
      for name, x in tokens.items()
    },
    'peak_memory_bytes': device.peak_memory_bytes(),
  }


def model_shape() -> dict[str, int]:
  return {
    'vocab_size': MINI.vocab_size,
    'emb_dim': MINI.d_model,
    'head_dim': MINI.d_kv,
    'mlp_dim': MINI.d_ff,
    'num_encoder_layers': MINI.encoder_layers,
    'num_decoder_layers': MINI.decoder_layers,
  }


def our_runs(theirs, inputs, shape: timing.Shape) -> dict[str, Run]:
  """'ours_g8' -> run, for every G."""
  weights = hf_models.state_of(theirs)
  multi_head, params = goldens.ours(weights, NUM_HEADS)
  runs = {}
  for g in KV_HEADS:
    config = multi_head.config
    model = network.Transformer(
      type(config)(**(vars(config) | {'num_kv_heads': g}))
    )
    pooled = methods.convert_params(
      params, num_heads=NUM_HEADS, num_kv_heads=g, method='mean'
    )
    pooled = jax.tree.map(jnp.asarray, pooled)
    runs[f'ours_g{g}'] = our_run(model, pooled, jnp.asarray(inputs), shape)
  return runs


def our_run(model, params, inputs, shape: timing.Shape) -> Run:
  rows = shape.encode_rows
  parts = [inputs[i : i + rows] for i in range(0, len(inputs), rows)]
  encode_rows = jax.jit(functools.partial(decoding.encode_source, model))

  def encode():
    caches = [encode_rows(params, part) for part in parts]
    cache = jax.tree.map(lambda *x: jnp.concatenate(x), *caches)
    return jax.block_until_ready(cache)

  decode_all = timing.compiled_decode(model, params, encode(), inputs, shape)
  return encode, lambda cache: jax.block_until_ready(decode_all(params, cache))


def their_runs(theirs, inputs, shape: timing.Shape) -> dict[str, Run]:
  """transformers' `generate`, and a bare loop over its decoder."""
  tokens = torch.from_numpy(inputs.astype(np.int64))
  mask = torch.ones_like(tokens)

  @torch.inference_mode()
  def encode():
    parts = zip(tokens.split(shape.encode_rows), mask.split(shape.encode_rows))
    return torch.cat([theirs.encoder(*part)[0] for part in parts])

  @torch.inference_mode()
  def generate(encoded):
    outputs = transformers.modeling_outputs.BaseModelOutput(encoded)
    return theirs.generate(
      encoder_outputs=outputs,
      attention_mask=mask,
      max_new_tokens=shape.output_length,
      do_sample=False,
    )[:, 1:].numpy()

  @torch.inference_mode()
  def loop(encoded):
    outputs = transformers.modeling_outputs.BaseModelOutput(encoded)
    current = torch.zeros((len(tokens), 1), dtype=torch.long)
    cache, decoded = None, []
    for _ in range(shape.output_length):
      out = theirs(
        encoder_outputs=outputs,
        attention_mask=mask,
        decoder_input_ids=current,
        past_key_values=cache,
        use_cache=True,
      )
      cache = out.past_key_values
      current = out.logits[:, -1:].argmax(dim=-1)
      decoded.append(current)
    return torch.cat(decoded, dim=1).numpy()

  return {
    'transformers_generate': (encode, generate),
    'transformers_loop': (encode, loop),
  }


def warm_up(run: Run) -> np.ndarray:
  encode, decode = run
  return np.asarray(decode(encode()))


def alternate(runs: dict[str, Run], rounds: int) -> dict[str, dict]:
  """Seconds of encoding and decoding of each, by round."""
  seconds = {
    name: {'encode_seconds': [], 'decode_seconds': []} for name in runs
  }
  names = list(runs)
  for i in range(rounds):
    turn = i % len(names)
    for name in names[turn:] + names[:turn]:
      encode, decode = runs[name]
      start = time.perf_counter()
      state = encode()
      middle = time.perf_counter()
      decode(state)
      end = time.perf_counter()
      seconds[name]['encode_seconds'].append(middle - start)
      seconds[name]['decode_seconds'].append(end - middle)
  return seconds


def show(record: dict) -> None:
  shape, results = record['shape'], record['results']
  print(
    f'batch {shape["batch_size"]}, input {shape["input_length"]}, output '
    f'{shape["output_length"]}, {device.label(record["device"])}, '
    f'n = {record["n"]}, load before {record["load_before"]}'
  )
  print(f'{"":24}decode ms/step [quartiles]   encode ms/sample')
  for name, result in results.items():
    step, encode = result['decode_ms_per_step'], result['encode_ms_per_sample']
    print(
      f'{name:24}{step["median"]:8.2f} [{step["q1"]:.2f}, {step["q3"]:.2f}]'
      f'{encode["median"]:14.2f}'
    )


if __name__ == '__main__':
  main()
