"""Makes tests/testdata/t5_*.npz from transformers' T5.

  pip install torch transformers
  python -m tests.oracles.make_goldens

Each file holds a small random model (weights under transformers' names, as
float16: they lie on its grid), a ragged batch, and what transformers computes
on it in float32: encoder output, teacher-forced logits, greedy tokens and
beam-search tokens. Sources are chosen whose greedy decoding is clear of ties
and whose best beams are those that T5X's rule gives (`clear_beams` says how
many: T5X ends beams among the best 2 K candidates, transformers among the
best K).
"""

import dataclasses
import pathlib
import sys

import numpy as np
import transformers

from tests.oracles import beam_reference
from tests.oracles import hf_models

TESTDATA = pathlib.Path(__file__).resolve().parents[1] / 'testdata'
NUM_BEAMS = 4
ROWS = 12  # candidate sources of each length
LOGIT_MARGIN = 2e-3  # of the greedy token over the next
NOISE = 1e-3  # on logits, that must not change the beams

SPECS = (
  hf_models.Spec('base', vocab_size=128),
  # heads * head_dim differs from d_model; the stacks differ in depth (a
  # decoder deeper than the encoder fails in transformers' own cache)
  hf_models.Spec('wide', d_kv=16, decoder_layers=1, seed=1),
  # distances of more than 128, in the source and in the output
  hf_models.Spec(
    'long',
    vocab_size=64,
    d_kv=4,
    d_ff=48,
    encoder_layers=3,
    decoder_layers=3,
    input_lengths=(200, 150),
    target_lengths=(160, 140),
    max_new_tokens=150,
    eos_bias=0.0,
    seed=2,
  ),
  # all decoder K/V heads equal: the same model at 1, 2 and 4 K/V heads
  hf_models.Spec('grouped', num_kv_heads=1, seed=3),
)


def main():
  for spec in SPECS:
    golden = None
    while golden is None:
      golden = make(spec)
      made, spec = spec, dataclasses.replace(spec, seed=spec.seed + 10)
    path = TESTDATA / f't5_{spec.name}.npz'
    np.savez_compressed(path, **golden)
    print(
      f'{path.name}: seed {made.seed}, {path.stat().st_size / 1e3:.0f} kB, '
      f'transformers {transformers.__version__}, greedy rows ended: '
      f'{_ended(golden["greedy"])}, clear beams: {golden["clear_beams"]}'
    )


def make(spec: hf_models.Spec) -> dict[str, np.ndarray] | None:
  """The arrays of a golden file, or None if the sources will not do."""
  model = hf_models.build(spec)
  targets = hf_models.targets(spec)
  inputs, clear = choose_sources(model, spec)
  if inputs is None:
    return None
  greedy = hf_models.generate(model, inputs, spec.max_new_tokens)[:, 0]
  beams = hf_models.generate(model, inputs, spec.max_new_tokens, NUM_BEAMS)
  if _ended(greedy).all() or not _ended(greedy).any():
    return None
  encoded, logits = hf_models.forward(model, inputs, targets)
  weights = {
    f'weights/{name}': value.astype(np.float16)
    for name, value in hf_models.state_of(model).items()
  }
  return weights | {
    'num_heads': spec.num_heads,
    'num_kv_heads': spec.num_kv_heads,
    'seed': spec.seed,
    'transformers': transformers.__version__,
    'inputs': inputs,
    'targets': targets,
    'encoded': encoded,
    'logits': logits,
    'greedy': greedy,
    'beams': beams,
    'clear_beams': np.array(clear, np.int32),
  }


def choose_sources(model, spec: hf_models.Spec):
  """A clear-cut source of each length, ended and not in turn.

  Returns:
    Sources [b, s] and the number of their clear beams, or None twice.
  """
  inputs, clear = [], []
  for i, sources in enumerate(hf_models.candidates(spec, ROWS)):
    greedy = hf_models.generate(model, sources, spec.max_new_tokens)[:, 0]
    beams = hf_models.generate(model, sources, spec.max_new_tokens, NUM_BEAMS)
    good = _varied(greedy) & (_margin(model, sources, greedy) > LOGIT_MARGIN)
    best = ((0, False, 0), -1)
    for row in np.flatnonzero(good):
      next_logits = hf_models.NextLogits(model, sources[row])
      count = clear_beams(next_logits, beams[row])
      wanted = _ended(greedy)[row] == (i % 2 == 0)
      rank = (min(count, 2), wanted, count)
      best = max(best, (rank, row))
      if count >= 2 and wanted:
        break
    (enough, _, count), row = best
    if enough < 2:
      return None, None
    inputs.append(sources[row])
    clear.append(count)
  return np.stack(inputs), clear


def _ended(greedy: np.ndarray) -> np.ndarray:
  return (greedy == 1).any(axis=-1)


def _varied(greedy: np.ndarray) -> np.ndarray:
  """Rows of three tokens or more that do not only repeat themselves."""
  lengths = (greedy != 0).sum(axis=-1)
  distinct = np.array([len(set(row) - {0, 1}) for row in greedy])
  return (lengths >= 3) & (distinct > np.sqrt(lengths))


def _margin(model, sources, greedy) -> np.ndarray:
  """Least margin of a greedy token's logit over the next best, by row."""
  _, logits = hf_models.forward(model, sources, greedy)
  best = np.sort(logits, axis=-1)
  margin = best[..., -1] - best[..., -2]
  return np.where(greedy > 0, margin, np.inf).min(axis=-1)


def clear_beams(next_logits, beams: np.ndarray) -> int:
  """How many of the leading beams T5X's rule finds too, noise or not.

  Fewer than all where a beam ends among the best 2 K candidates but not the
  best K, or where transformers returns beams cut at the maximum length beside
  ended ones (T5X returns them only if none ended).
  """
  rng = np.random.default_rng(0)

  def noisy(prefixes):
    logits = next_logits(prefixes)
    return logits + rng.uniform(-NOISE, NOISE, logits.shape)

  return min(
    _leading_agreement(
      beams,
      beam_reference.beam_search(
        logits, num_beams=len(beams), max_length=beams.shape[1], alpha=0.0
      ).tokens,
    )
    for logits in (next_logits, noisy, noisy)
  )


def _leading_agreement(beams: np.ndarray, found: list[list[int]]) -> int:
  agrees = [list(row[row != 0]) == tokens for row, tokens in zip(beams, found)]
  return (agrees + [False]).index(False)


if __name__ == '__main__':
  sys.exit(main())
