"""One update, and one teacher-forced evaluation, as pure functions."""

from collections.abc import Mapping

import jax
import optax

from gqa_flax.model import network
from gqa_flax.training import losses
from gqa_flax.training.state import TrainState


def forward(
  model: network.Transformer,
  params,
  batch: Mapping[str, jax.Array],
  dropout_rng: jax.Array | None = None,
) -> jax.Array:
  """Teacher-forced logits [b, t, v] of a batch of model features."""
  return model.apply(
    {'params': params},
    batch['encoder_input_tokens'],
    batch['decoder_input_tokens'],
    batch['decoder_target_tokens'],
    encoder_segment_ids=batch.get('encoder_segment_ids'),
    decoder_segment_ids=batch.get('decoder_segment_ids'),
    encoder_positions=batch.get('encoder_positions'),
    decoder_positions=batch.get('decoder_positions'),
    enable_dropout=dropout_rng is not None,
    rngs=None if dropout_rng is None else {'dropout': dropout_rng},
  )


def batch_loss(
  model: network.Transformer,
  params,
  batch: Mapping[str, jax.Array],
  z_loss: float = 0.0,
  dropout_rng: jax.Array | None = None,
) -> dict[str, jax.Array]:
  """Summed loss and counts, as `losses.cross_entropy`."""
  return losses.cross_entropy(
    forward(model, params, batch, dropout_rng),
    batch['decoder_target_tokens'],
    batch['decoder_loss_weights'],
    z_loss,
  )


def train_step(
  model: network.Transformer,
  tx: optax.GradientTransformation,
  state: TrainState,
  batch: Mapping[str, jax.Array],
  *,
  z_loss: float,
  loss_normalizing_factor: float | None,
  seed: int,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One Adafactor update.

  The dropout key is a function of the seed and the step, so that a resumed
  run draws what the uninterrupted one would have drawn.

  Args:
    model: the network.
    tx: the optimizer.
    state: before the update.
    batch: model features.
    z_loss: coefficient of log(Z)^2.
    loss_normalizing_factor: what the summed loss is divided by; None for the
      batch's own count of tokens. Second moments carry its square, so it has
      to stay the same along a run.
    seed: seed of dropout.

  Returns:
    The new state and the sums of `losses.cross_entropy`.
  """
  dropout_rng = None
  if model.config.dropout_rate:
    dropout_rng = jax.random.fold_in(jax.random.key(seed), state.step)

  def loss_fn(params):
    sums = batch_loss(model, params, batch, z_loss, dropout_rng)
    return sums['loss'] / (loss_normalizing_factor or sums['tokens']), sums

  gradients, sums = jax.grad(loss_fn, has_aux=True)(state.params)
  updates, opt_state = tx.update(gradients, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  return TrainState(state.step + 1, params, opt_state), sums
