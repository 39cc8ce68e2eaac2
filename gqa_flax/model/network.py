"""T5.1.1 whose decoder attends with num_kv_heads key and value heads.

Parameter names, their 2-D shapes and the call signatures are those of T5X's
examples/t5/network.py, unscanned. The encoder is always multi-head (section
2.2 of the paper: it runs in parallel, so memory bandwidth does not bind it).
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from gqa_flax.model import attention
from gqa_flax.model import config as config_lib
from gqa_flax.model import layers
from gqa_flax.model import masks

T5Config = config_lib.T5Config


def _norm(cfg: T5Config, name: str) -> layers.LayerNorm:
  return layers.LayerNorm(dtype=cfg.dtype, name=name)


def _attention(
  cfg: T5Config, num_kv_heads: int, name: str | None = None
) -> attention.GroupedQueryAttention:
  return attention.GroupedQueryAttention(
    num_heads=cfg.num_heads,
    num_kv_heads=num_kv_heads,
    head_dim=cfg.head_dim,
    dtype=cfg.dtype,
    dropout_rate=cfg.dropout_rate,
    float32_logits=cfg.float32_attention_logits,
    name=name,
  )


def _mlp(cfg: T5Config) -> layers.MlpBlock:
  return layers.MlpBlock(
    intermediate_dim=cfg.mlp_dim,
    activations=cfg.mlp_activations,
    dropout_rate=cfg.dropout_rate,
    dtype=cfg.dtype,
    name='mlp',
  )


def _relative_bias(cfg: T5Config) -> layers.RelativePositionBiases:
  return layers.RelativePositionBiases(
    num_buckets=config_lib.RELATIVE_BUCKETS,
    max_distance=config_lib.RELATIVE_MAX_DISTANCE,
    num_heads=cfg.num_heads,
    dtype=cfg.dtype,
    name='relpos_bias',
  )


def _dropout(cfg: T5Config, x: jax.Array, deterministic: bool) -> jax.Array:
  """Dropout broadcast over positions."""
  return nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))(
    x, deterministic=deterministic
  )


class EncoderLayer(nn.Module):
  """Self-attention and MLP, each behind a norm and beside a residual."""

  config: T5Config

  @nn.compact
  def __call__(self, inputs, mask, bias, deterministic):
    cfg = self.config
    x = _norm(cfg, 'pre_attention_layer_norm')(inputs)
    x = _attention(cfg, cfg.num_heads, 'attention')(
      x, x, mask, bias, deterministic=deterministic
    )
    x = _dropout(cfg, x, deterministic) + inputs
    y = _norm(cfg, 'pre_mlp_layer_norm')(x)
    y = _mlp(cfg)(y, deterministic=deterministic)
    return _dropout(cfg, y, deterministic) + x


class DecoderLayer(nn.Module):
  """Grouped self-attention, grouped cross-attention, MLP."""

  config: T5Config

  def setup(self):
    self.encoder_decoder_attention = _attention(
      self.config, self.config.num_kv_heads
    )

  def fill_cache(self, encoded: jax.Array) -> None:
    self.encoder_decoder_attention.fill_cache(encoded)

  @nn.compact
  def __call__(
    self, inputs, encoded, mask, bias, cross_mask, deterministic, decode
  ):
    cfg = self.config
    x = _norm(cfg, 'pre_self_attention_layer_norm')(inputs)
    x = _attention(cfg, cfg.num_kv_heads, 'self_attention')(
      x, x, mask, bias, deterministic=deterministic, decode=decode
    )
    x = _dropout(cfg, x, deterministic) + inputs
    y = _norm(cfg, 'pre_cross_attention_layer_norm')(x)
    y = self.encoder_decoder_attention(
      y, encoded, cross_mask, deterministic=deterministic
    )
    y = _dropout(cfg, y, deterministic) + x
    z = _norm(cfg, 'pre_mlp_layer_norm')(y)
    z = _mlp(cfg)(z, deterministic=deterministic)
    return _dropout(cfg, z, deterministic) + y


class Encoder(nn.Module):
  """Stack of encoder layers that share one relative position bias."""

  config: T5Config
  shared_embedding: nn.Module

  @nn.compact
  def __call__(self, tokens, mask, deterministic):
    cfg = self.config
    length = tokens.shape[-1]
    bias = _relative_bias(cfg)(length, length, True)  # [1, h, s, s]
    x = self.shared_embedding(tokens)  # [b, s, e]
    x = _dropout(cfg, x, deterministic).astype(cfg.dtype)
    for i in range(cfg.num_encoder_layers):
      x = EncoderLayer(cfg, name=f'layers_{i}')(x, mask, bias, deterministic)
    x = _norm(cfg, 'encoder_norm')(x)
    return nn.Dropout(cfg.dropout_rate)(x, deterministic=deterministic)


class Decoder(nn.Module):
  """Stack of decoder layers that share one relative position bias."""

  config: T5Config
  shared_embedding: nn.Module

  def setup(self):
    cfg = self.config
    self.layers = [
      DecoderLayer(cfg, name=f'layers_{i}')
      for i in range(cfg.num_decoder_layers)
    ]

  def fill_cache(self, encoded: jax.Array) -> None:
    for layer in self.layers:
      layer.fill_cache(encoded)

  def _bias(self, length: int, decode: bool) -> jax.Array:
    """[1, h, t, t], or in decoding the current row [1, h, 1, t].

    The position is kept under a name that T5X knows not to spread over beams.
    """
    relative_bias = _relative_bias(self.config)
    if not decode:
      return relative_bias(length, length, False)
    initialized = self.has_variable('cache', 'position_embedder_index')
    index = self.variable(
      'cache', 'position_embedder_index', lambda: jnp.array(0, jnp.int32)
    )
    if not initialized:
      return relative_bias(length, length, False)
    row = relative_bias(length, length, False, query_index=index.value)
    index.value = index.value + 1
    return row

  @nn.compact
  def __call__(
    self,
    encoded,
    tokens,
    mask,
    cross_mask,
    deterministic,
    decode,
    max_decode_length,
  ):
    cfg = self.config
    length = max_decode_length if decode and max_decode_length else None
    bias = self._bias(length or tokens.shape[-1], decode)
    y = self.shared_embedding(tokens)  # [b, t, e]
    y = _dropout(cfg, y, deterministic).astype(cfg.dtype)
    for layer in self.layers:
      y = layer(y, encoded, mask, bias, cross_mask, deterministic, decode)
    y = _norm(cfg, 'decoder_norm')(y)
    y = _dropout(cfg, y, deterministic)
    if cfg.logits_via_embedding:
      return self.shared_embedding.attend(y) / jnp.sqrt(y.shape[-1])
    # Logits in float32: bfloat16 cannot tell close ones apart.
    return layers.Dense(
      cfg.vocab_size, ('embed', 'vocab'), name='logits_dense'
    )(y)  # [b, t, v]


class Transformer(nn.Module):
  """The encoder-decoder."""

  config: T5Config

  def setup(self):
    cfg = self.config
    self.token_embedder = layers.Embed(
      num_embeddings=cfg.vocab_size, features=cfg.emb_dim, dtype=cfg.dtype
    )
    self.encoder = Encoder(cfg, self.token_embedder)
    self.decoder = Decoder(cfg, self.token_embedder)

  def encode(
    self, encoder_input_tokens, encoder_segment_ids=None, enable_dropout=True
  ):
    """[b, s] integers, 0 is padding -> [b, s, e]."""
    valid = encoder_input_tokens > 0
    mask = masks.attention_mask(valid, valid)
    if encoder_segment_ids is not None:
      mask = masks.combine(
        mask, masks.segment_mask(encoder_segment_ids, encoder_segment_ids)
      )
    return self.encoder(encoder_input_tokens, mask, not enable_dropout)

  def fill_cache(self, encoded):
    """Keeps cross-attention K/V of [b, s, e] in the collection `cache`."""
    self.decoder.fill_cache(encoded)

  def decode(
    self,
    encoded,
    encoder_input_tokens,
    decoder_input_tokens,
    decoder_target_tokens,
    encoder_segment_ids=None,
    decoder_segment_ids=None,
    decoder_positions=None,
    enable_dropout=True,
    decode=False,
    max_decode_length=None,
  ):
    """Logits [b, t, v] of the decoder.

    Args:
      encoded: [b, s, e] of `encode`; ignored where `fill_cache` was called.
      encoder_input_tokens: [b, s] integers, for the padding mask.
      decoder_input_tokens: [b, t] integers, targets shifted right.
      decoder_target_tokens: [b, t] integers, for the padding mask.
      encoder_segment_ids: [b, s] for packed examples, or None.
      decoder_segment_ids: [b, t] for packed examples, or None.
      decoder_positions: unused, as in T5X: positions are relative.
      enable_dropout: needs an RNG named `dropout`.
      decode: one position a call, through the cache.
      max_decode_length: length of the self-attention cache.
    """
    del decoder_positions
    source_valid = encoder_input_tokens > 0
    if decode:
      if encoder_segment_ids is not None:
        raise ValueError(
          'Decoding takes unpacked examples: encoder_segment_ids must be None.'
        )
      mask = None
      cross_mask = source_valid[:, None, None, :]
    else:
      mask = masks.decoder_mask(decoder_target_tokens, decoder_segment_ids)
      cross_mask = masks.attention_mask(decoder_target_tokens > 0, source_valid)
    if encoder_segment_ids is not None:
      cross_mask = masks.combine(
        cross_mask,
        masks.segment_mask(decoder_segment_ids, encoder_segment_ids),
      )
    return self.decoder(
      encoded,
      decoder_input_tokens,
      mask,
      cross_mask,
      not enable_dropout,
      decode,
      max_decode_length,
    )

  def __call__(
    self,
    encoder_input_tokens,
    decoder_input_tokens,
    decoder_target_tokens,
    encoder_segment_ids=None,
    decoder_segment_ids=None,
    encoder_positions=None,
    decoder_positions=None,
    *,
    enable_dropout: bool = True,
    decode: bool = False,
  ):
    """Logits [b, t, v] of teacher-forced targets; arguments as `decode`."""
    del encoder_positions
    encoded = self.encode(
      encoder_input_tokens, encoder_segment_ids, enable_dropout
    )
    return self.decode(
      encoded,
      encoder_input_tokens,
      decoder_input_tokens,
      decoder_target_tokens,
      encoder_segment_ids=encoder_segment_ids,
      decoder_segment_ids=decoder_segment_ids,
      decoder_positions=decoder_positions,
      enable_dropout=enable_dropout,
      decode=decode,
    )
