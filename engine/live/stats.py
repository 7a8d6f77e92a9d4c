"""A session's figures as JSON holds them."""

import math
from dataclasses import asdict
from typing import Any

from engine.live.options import LiveSnapshot
from engine.live.session import LiveSession


def session_stats(session: LiveSession, snapshot: LiveSnapshot) -> dict[str, Any]:
    """What `autovoice live --stats` writes.

    Args:
        session: Running or just stopped.
        snapshot: Its last one while live.
    """
    counts, latency = snapshot.counts, snapshot.latency
    return {
        "seconds": round(snapshot.seconds, 2),
        "block_ms": snapshot.block_ms,
        "blocks": counts.blocks,
        "real_time_factor": {
            "median": round(snapshot.rtf_median, 4),
            "p99": round(snapshot.rtf_p99, 4),
            "max": round(snapshot.rtf_max, 4),
        },
        "xruns": counts.xruns,
        "input_overflows": counts.input_overflows,
        "output_underflows": counts.output_underflows,
        "device_xruns": counts.device_xruns,
        "dropped_blocks": counts.dropped_blocks,
        "trimmed_ms": round(counts.trimmed_ms, 2),
        "device_losses": counts.device_losses,
        "input_buffer_ms": round(snapshot.input_buffer_ms, 2),
        "output_buffer_ms": round(snapshot.output_buffer_ms, 2),
        "drift_ppm": round(snapshot.drift_ppm, 1),
        "transpose_semitones": snapshot.transpose_semitones if math.isfinite(snapshot.transpose_semitones) else None,
        "latency_ms": {name: round(value, 2) for name, value in asdict(latency).items()}
        | {"sum": round(latency.total, 2)},
        "block_measurements": [asdict(measurement) for measurement in session.measurements],
    }
