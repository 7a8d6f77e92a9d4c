"""`engine.conversion.synthesis.Excitation` for batches, on any torch device, so that training need not leave a GPU."""

import torch
from torch import Tensor

from engine.conversion.bands import HOP_LENGTH, SAMPLE_RATE
from engine.conversion.synthesis import pulses_of_hops


def pulse_trains(f0_hz: Tensor) -> Tensor:
    """Pulses of unit power where voiced, as `Excitation.push` makes them after a frame 0 was pushed.

    Args:
        f0_hz: [B, T] wanted F0, 0 where unvoiced.

    Returns:
        [B, T - 1, 480]; hop t lies between frames t and t + 1.
    """
    num_frames = f0_hz.shape[1]
    first, last = f0_hz[:, :-1].double(), f0_hz[:, 1:].double()
    voiced = (first > 0) | (last > 0)
    first = torch.where(first > 0, first, last)
    last = torch.where(last > 0, last, first)
    # F0 runs linearly inside a hop; its integral crosses an integer at every pulse. Unvoiced hops begin anew.
    gained = (first + last) / 2 * (HOP_LENGTH / SAMPLE_RATE)
    total = torch.cumsum(gained, dim=1)
    reset = torch.where(voiced, torch.full_like(total, -1.0), total)
    begun = torch.cummax(reset, dim=1).values
    began = torch.where(begun >= 0, begun - 0.5, torch.zeros_like(begun))
    phase = ((total - gained) - began).remainder(1.0)
    pulses = pulses_of_hops(torch.where(voiced, first, 0.0), torch.where(voiced, last, 0.0), phase)
    return pulses[:, : (num_frames - 1) * HOP_LENGTH].unflatten(1, (num_frames - 1, HOP_LENGTH))
