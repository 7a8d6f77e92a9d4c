"""The speaker encoder: whose voice a recording holds, as a vector of unit length.

A small convolutional network over the 44 speech bands with attentive statistics pooling (Okabe et al., Interspeech
2018), taught to reproduce the embeddings of Resemblyzer's GE2E encoder (Wan et al., ICASSP 2018).
"""

import torch
from torch import nn

from engine.conversion.bands import NUM_SPEECH_BANDS
from engine.conversion.decoder import EMBEDDING_SIZE

WINDOW_FRAMES = 160
WINDOW_HOP_FRAMES = 80


class SpeakerEncoder(nn.Module):
    """Embeds windows of band levels.

    Args:
        width: Channels.
    """

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(NUM_SPEECH_BANDS, width, 5),
            nn.GELU(),
            nn.BatchNorm1d(width),
            nn.Conv1d(width, width, 3, dilation=2),
            nn.GELU(),
            nn.BatchNorm1d(width),
            nn.Conv1d(width, width, 3, dilation=3),
            nn.GELU(),
            nn.BatchNorm1d(width),
            nn.Conv1d(width, 2 * width, 1),
            nn.GELU(),
        )
        self.attend = nn.Conv1d(2 * width, 1, 1)
        self.leave = nn.Linear(4 * width, EMBEDDING_SIZE)

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        """[B, T, 44] unsmoothed band levels, T >= 20, to [B, 256] of unit length; loudness does not matter."""
        centred = levels - levels.amax(dim=(1, 2), keepdim=True)
        x = self.layers((centred.clamp(min=-12.0) / 4.0 + 1.0).transpose(1, 2))
        weights = torch.softmax(self.attend(x), dim=-1)
        mean = (x * weights).sum(-1)
        spread = ((x - mean.unsqueeze(-1)).square() * weights).sum(-1).clamp(min=1e-5).sqrt()
        return nn.functional.normalize(self.leave(torch.cat([mean, spread], dim=-1)), dim=-1)


@torch.inference_mode()
def embed_levels(encoder: SpeakerEncoder, raw: torch.Tensor) -> torch.Tensor:
    """Embed a recording of any length: the mean over overlapping windows of 1.6 s.

    Args:
        encoder: In evaluation mode.
        raw: [T, 44] unsmoothed band levels of the active frames.

    Returns:
        [256] of unit length.
    """
    if len(raw) < WINDOW_FRAMES:
        repeats = -(-WINDOW_FRAMES // max(len(raw), 1))
        raw = raw.repeat(repeats, 1)[:WINDOW_FRAMES]
    starts = range(0, len(raw) - WINDOW_FRAMES + 1, WINDOW_HOP_FRAMES)
    windows = torch.stack([raw[start : start + WINDOW_FRAMES] for start in starts])
    means = [encoder(part).sum(0) for part in windows.split(64)]
    return nn.functional.normalize(torch.stack(means).sum(0), dim=-1)
