"""Seeded random T5 v1.1 models of transformers, and what they compute.

Needs torch and transformers; only the script that makes the golden files,
the live tests and the benchmark import it.
"""

import dataclasses

import numpy as np
import torch
import transformers


@dataclasses.dataclass(frozen=True)
class Spec:
  """A random model and the batch it is run on.

  Attributes:
    name: of the golden file.
    vocab_size, d_model, d_kv, num_heads, d_ff: transformers' names.
    num_kv_heads: decoder K/V heads that differ; the heads of a group are
      equal copies, so that a grouped model computes the same.
    encoder_layers, decoder_layers: layers of each stack.
    input_lengths: tokens of each source; shorter ones are padded with 0.
    target_lengths: tokens of each target of the teacher-forced pass.
    max_new_tokens: decoded at most.
    logit_gain: spread of the logits.
    eos_gain: spread of the logit of the end of sequence, as a multiple of the
      other tokens'; larger ends more sequences.
    eos_bias: added to the logit of the end of sequence, on average.
    seed: of weights and tokens.
  """

  name: str
  vocab_size: int = 96
  d_model: int = 32
  d_kv: int = 8
  num_heads: int = 4
  num_kv_heads: int = 4
  d_ff: int = 64
  encoder_layers: int = 2
  decoder_layers: int = 2
  input_lengths: tuple[int, ...] = (20, 13, 5, 2)
  target_lengths: tuple[int, ...] = (12, 7, 10, 3)
  max_new_tokens: int = 16
  logit_gain: float = 2.0
  eos_gain: float = 1.5
  eos_bias: float = 2.0
  seed: int = 0


def build(spec: Spec) -> transformers.T5ForConditionalGeneration:
  """T5 v1.1 (gated GELU, untied logits) with random weights.

  Weights are rounded to float16's grid, so that a golden file may keep them
  as float16 without loss; everything computes in float32.
  """
  config = transformers.T5Config(
    vocab_size=spec.vocab_size,
    d_model=spec.d_model,
    d_kv=spec.d_kv,
    d_ff=spec.d_ff,
    num_heads=spec.num_heads,
    num_layers=spec.encoder_layers,
    num_decoder_layers=spec.decoder_layers,
    feed_forward_proj='gated-gelu',
    tie_word_embeddings=False,
    decoder_start_token_id=0,
    pad_token_id=0,
    eos_token_id=1,
  )
  model = transformers.T5ForConditionalGeneration(config).eval()
  # Recent versions of transformers tie the two whatever the config says.
  model.lm_head.weight = torch.nn.Parameter(
    torch.empty(spec.vocab_size, spec.d_model)
  )
  rng = np.random.default_rng(spec.seed)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      value = _random_weight(name, tuple(parameter.shape), spec, rng)
      parameter.copy_(_on_float16_grid(value))
  _raise_eos(model, spec)
  return model


def _on_float16_grid(value) -> torch.Tensor:
  return torch.from_numpy(np.float32(np.float16(value)))


def _raise_eos(model, spec: Spec) -> None:
  """Adds eos_bias to the end of sequence's logit, on average over states.

  Without it a random model hardly ends, and its best beams are all cut.
  """
  tokens = torch.from_numpy(candidates(spec, 8)[0].astype(np.int64))
  with torch.no_grad():
    out = model(
      input_ids=tokens, decoder_input_ids=tokens, output_hidden_states=True
    )
    state = out.decoder_hidden_states[-1].mean(dim=(0, 1))
    row = model.lm_head.weight[1] + spec.eos_bias * state / state.dot(state)
    model.lm_head.weight[1] = _on_float16_grid(row.numpy())


def _random_weight(name: str, shape, spec: Spec, rng) -> np.ndarray:
  """Weights large enough that attention is peaked and logits spread."""
  value = rng.standard_normal(shape)
  if 'layer_norm' in name:
    return 1.0 + 0.2 * value
  if 'relative_attention_bias' in name or name == 'shared.weight':
    return value
  if name == 'lm_head.weight':
    value = value * spec.d_model**-0.5 * spec.logit_gain
    value[1] *= spec.eos_gain
    return value
  value = value * shape[1] ** -0.5
  if name.startswith('decoder') and name.split('.')[-2] in ('k', 'v'):
    heads = value.reshape(spec.num_heads, spec.d_kv, -1)
    group = spec.num_heads // spec.num_kv_heads
    value = np.repeat(heads[::group], group, axis=0).reshape(shape)
  return value * (0.6 if name.split('.')[-2] == 'q' else 1.2)


def state_of(model) -> dict[str, np.ndarray]:
  """The model's parameters as numpy arrays under transformers' names."""
  return {k: v.detach().numpy() for k, v in model.named_parameters()}


def candidates(spec: Spec, rows: int) -> np.ndarray:
  """Random sources, `rows` of each length: [lengths, rows, s] int32."""
  rng = np.random.default_rng(spec.seed + 1_000_000)
  lengths = np.repeat(spec.input_lengths, rows)
  tokens = _ragged(rng, lengths, spec.vocab_size)
  return tokens.reshape(len(spec.input_lengths), rows, -1)


def targets(spec: Spec) -> np.ndarray:
  """Random targets, padded with 0: [b, t] int32."""
  rng = np.random.default_rng(spec.seed + 2_000_000)
  return _ragged(rng, spec.target_lengths, spec.vocab_size)


def _ragged(rng, lengths, vocab_size: int) -> np.ndarray:
  tokens = rng.integers(2, vocab_size, (len(lengths), max(lengths)), np.int32)
  for row, length in zip(tokens, lengths):
    row[length - 1] = 1  # the end of the sequence
    row[length:] = 0
  return tokens


def forward(model, inputs, targets) -> tuple[np.ndarray, np.ndarray]:
  """Encoder output [b, s, e] and teacher-forced logits [b, t, v]."""
  decoder_inputs = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
  with torch.no_grad():
    out = model(
      input_ids=_long(inputs),
      attention_mask=_long(inputs > 0),
      decoder_input_ids=_long(decoder_inputs),
    )
  return out.encoder_last_hidden_state.numpy(), out.logits.numpy()


def generate(model, inputs, max_new_tokens: int, num_beams: int = 1):
  """Tokens [b, num_beams, max_new_tokens], best beam first, padded with 0.

  No length penalty, and the search goes on until no beam can be bettered, as
  T5X's does with alpha 0.
  """
  with torch.no_grad():
    tokens = model.generate(
      input_ids=_long(inputs),
      attention_mask=_long(inputs > 0),
      max_new_tokens=max_new_tokens,
      do_sample=False,
      num_beams=num_beams,
      num_return_sequences=num_beams,
      **(
        {}
        if num_beams == 1
        else {'length_penalty': 0.0, 'early_stopping': 'never'}
      ),
    ).numpy()
  tokens = tokens[:, 1:]  # without the start token
  # transformers fills up with `pad_token_id or eos_token_id`, so with 1.
  ended_before = np.cumsum(tokens == 1, axis=1) - (tokens == 1) > 0
  tokens = np.where(ended_before, 0, tokens)
  tokens = np.pad(tokens, ((0, 0), (0, max_new_tokens - tokens.shape[1])))
  return tokens.reshape(len(inputs), num_beams, -1).astype(np.int32)


class NextLogits:
  """Next-token logits of one source by full passes, without a cache."""

  def __init__(self, model, source: np.ndarray):
    self._model = model
    length = max(int((source > 0).sum()), 1)
    with torch.no_grad():
      self._encoded = model.encoder(_long(source[None, :length]))[0]

  def __call__(self, prefixes: list[list[int]]) -> np.ndarray:
    """Prefixes of one length -> [prefixes, v] float32."""
    decoder_inputs = np.array([[0] + prefix for prefix in prefixes])
    encoded = self._encoded.expand(len(prefixes), -1, -1)
    with torch.no_grad():
      out = self._model(
        encoder_outputs=(encoded,), decoder_input_ids=_long(decoder_inputs)
      )
    return out.logits[:, -1].numpy()


def _long(array) -> torch.Tensor:
  return torch.from_numpy(np.asarray(array, np.int64))
