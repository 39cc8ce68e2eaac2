"""The run of Adafactor that T5X's golden values and our test share."""

import numpy as np

SHAPES = {
  'square': (128, 128),
  'wide': (128, 160),
  'tall': (192, 128),
  'narrow_32': (256, 32),  # G = 1 of head_dim 32: not factored
  'narrow_64': (256, 64),
  'scale': (128,),
  'bias_table': (8, 32),
}
STEPS = 20
# First step, and whether second moments are carried from an earlier run.
RUNS = {'from_0': 0, 'from_7200': 7200}
# Long arrays are kept at every STRIDE-th entry: all of them are compared
# through their sums.
STRIDE = 101


def learning_rate(step: int) -> float:
  """T5's pre-training schedule, its constant part shortened to 10 steps."""
  return float(1.0 / np.sqrt(max(step, 10)))


def parameters() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  sizes = {'scale': 1.0, 'bias_table': 1e-4}  # the latter is below eps2
  return {
    name: np.float32(rng.standard_normal(shape) * sizes.get(name, 0.05))
    for name, shape in SHAPES.items()
  }


def gradient(name: str, step: int) -> np.ndarray:
  """Gradients of uneven rows and columns, small, sometimes very large."""
  seed = list(SHAPES).index(name) * 100_000 + step
  rng = np.random.default_rng(seed)
  shape = SHAPES[name]
  scale = 1e-3 * (30.0 if step % 7 == 3 else 1.0)
  for axis, size in enumerate(shape):
    spread = np.exp(np.sin(np.arange(size) * (axis + 1.3)))
    scale = scale * spread.reshape((-1,) + (1,) * (len(shape) - axis - 1))
  return np.float32(rng.standard_normal(shape) * scale)
