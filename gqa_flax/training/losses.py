"""Cross-entropy with T5's auxiliary z-loss."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(
  logits: jax.Array,
  targets: jax.Array,
  weights: jax.Array,
  z_loss: float = 0.0,
) -> dict[str, jax.Array]:
  """Sums over the tokens of a batch, as T5X's losses.py.

  Args:
    logits: [b, t, v].
    targets: [b, t] integers.
    weights: [b, t], 0 where a token does not count.
    z_loss: coefficient of log(Z)^2, which keeps logits from drifting.

  Returns:
    float32 scalars: `loss` (z-loss included), `cross_entropy` (nats), both
    summed, `correct` (argmax hits) and `tokens` (sum of weights).
  """
  logits = logits.astype(jnp.float32)
  weights = weights.astype(jnp.float32)
  entropy = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
  total = entropy
  if z_loss:
    log_z = jax.nn.logsumexp(logits, axis=-1)
    total = total + z_loss * jnp.square(log_z)
  return {
    'loss': jnp.sum(total * weights),
    'cross_entropy': jnp.sum(entropy * weights),
    'correct': jnp.sum((jnp.argmax(logits, -1) == targets) * weights),
    'tokens': jnp.sum(weights),
  }
