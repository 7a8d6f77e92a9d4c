"""`engine.conversion.synthesis.Excitation` for batches, on any torch device, so that training need not leave a GPU."""

import torch
from torch import Tensor

from engine.conversion.bands import HOP_LENGTH, SAMPLE_RATE
from engine.conversion.synthesis import KERNEL_PHASES, KERNEL_TAPS, KERNELS


def pulse_trains(f0_hz: Tensor) -> Tensor:
    """Pulses of unit power where voiced, as `Excitation.push` makes them after a frame 0 was pushed.

    Args:
        f0_hz: [B, T] wanted F0, 0 where unvoiced.

    Returns:
        [B, T - 1, 480]; hop t lies between frames t and t + 1.
    """
    batch, num_frames = f0_hz.shape
    first, last = f0_hz[:, :-1].double(), f0_hz[:, 1:].double()
    voiced = (first > 0) | (last > 0)
    first = torch.where(first > 0, first, last)
    last = torch.where(last > 0, last, first)
    ramp = torch.arange(1, HOP_LENGTH + 1, device=f0_hz.device, dtype=torch.float64) / HOP_LENGTH
    # F0 runs linearly inside a hop; its integral crosses an integer at every pulse. Unvoiced hops begin anew.
    gained = (first + last) / 2 * (HOP_LENGTH / SAMPLE_RATE)
    total = torch.cumsum(gained, dim=1)
    reset = torch.where(voiced, torch.full_like(total, -1.0), total)
    begun = torch.cummax(reset, dim=1).values
    began = torch.where(begun >= 0, begun - 0.5, torch.zeros_like(begun))
    phase = ((total - gained) - began).remainder(1.0)
    cycles = phase[..., None] + (first[..., None] * ramp + (last - first)[..., None] * ramp.square() / 2) * (
        HOP_LENGTH / SAMPLE_RATE
    )
    before = torch.cat([phase[..., None], cycles[..., :-1]], dim=-1)
    hits = (torch.floor(cycles) > torch.floor(before)) & voiced[..., None]
    row, hop, sample = hits.nonzero(as_tuple=True)
    after_hit, before_hit = cycles[row, hop, sample], before[row, hop, sample]
    step = after_hit - before_hit
    fraction = (torch.floor(after_hit) - before_hit) / step
    kernels = torch.from_numpy(KERNELS).to(f0_hz.device)
    shapes = kernels[(fraction * KERNEL_PHASES).round().long()] * step.rsqrt().float()[:, None]
    length = (num_frames - 1) * HOP_LENGTH + KERNEL_TAPS
    places = (row * length + hop * HOP_LENGTH + sample)[:, None] + torch.arange(KERNEL_TAPS, device=f0_hz.device)
    pulses = torch.zeros(batch * length, device=f0_hz.device)
    pulses.index_add_(0, places.reshape(-1), shapes.reshape(-1))
    return pulses.view(batch, length)[:, :-KERNEL_TAPS].reshape(batch, num_frames - 1, HOP_LENGTH)
