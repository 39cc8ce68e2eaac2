"""What a measurement ran on, and what it took: for records."""

import os
import pathlib
import platform
import resource
import subprocess
import sys
from typing import Any

import jax


def describe() -> dict[str, Any]:
  """platform ('cpu', 'gpu', 'tpu'), name, devices, cores, system."""
  device = jax.devices()[0]
  is_cpu = device.platform == 'cpu'
  return {
    'platform': device.platform,
    'name': cpu_name() if is_cpu else device.device_kind,
    'devices': jax.device_count(),
    'cores': usable_cores(),
    'system': f'{platform.system()} {platform.machine()}',
  }


def label(device: dict[str, Any]) -> str:
  """'AMD EPYC 7B13, 2 cores', '8 x TPU v4'."""
  if device['platform'] == 'cpu':
    cores = device['cores']
    return f'{device["name"]}, {cores} core{"" if cores == 1 else "s"}'
  count = f'{device["devices"]} x ' if device['devices'] > 1 else ''
  return count + device['name']


def usable_cores() -> int:
  """Cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def cpu_name() -> str:
  """The processor's name as its maker gives it, as far as it is known."""
  cpuinfo = pathlib.Path('/proc/cpuinfo')
  if cpuinfo.exists():
    for line in cpuinfo.read_text().splitlines():
      if line.startswith(('model name', 'Model')):
        return line.split(':', 1)[1].strip()
  if sys.platform == 'darwin':
    command = ['sysctl', '-n', 'machdep.cpu.brand_string']
    found = subprocess.run(command, capture_output=True, text=True)
    if found.stdout.strip():
      return found.stdout.strip()
  return platform.processor() or platform.machine()


def peak_memory_bytes() -> int:
  """Largest resident size that this process has had so far."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == 'darwin' else peak * 1024  # Linux: KiB.
