"""Live mode: speak into a microphone, come out as someone else."""

from engine.live.chain import ChainBlock, LiveChain
from engine.live.history import HistoryView, LiveHistory
from engine.live.measuring import BlockMeasurement, BlockTimes, measure_blocks, warm_up
from engine.live.options import (
    BLOCK_CHOICES_MS,
    SAMPLE_RATE,
    LatencyParts,
    LiveCounts,
    LiveOptions,
    LiveSettings,
    LiveSnapshot,
    LiveState,
    VoiceStream,
)
from engine.live.recording import LiveRecorder, dry_path
from engine.live.session import LiveSession, LiveVoice
from engine.live.stats import session_stats

__all__ = [
    "BLOCK_CHOICES_MS",
    "SAMPLE_RATE",
    "BlockMeasurement",
    "BlockTimes",
    "ChainBlock",
    "HistoryView",
    "LatencyParts",
    "LiveChain",
    "LiveCounts",
    "LiveHistory",
    "LiveOptions",
    "LiveRecorder",
    "LiveSession",
    "LiveSettings",
    "LiveSnapshot",
    "LiveState",
    "LiveVoice",
    "VoiceStream",
    "dry_path",
    "measure_blocks",
    "session_stats",
    "warm_up",
]
