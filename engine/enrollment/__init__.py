"""Recordings into voices: judged first, then cleaned, embedded and kept."""

from engine.enrollment.assessment import NEEDED_VOICED_S, WANTED_VOICED_S, Assessment, assess
from engine.enrollment.changing import blend, blended, improve, preview
from engine.enrollment.enrolling import (
    RoomNoise,
    Take,
    as_flac,
    check_takes,
    enroll,
    find_recordings,
    judge_room,
    still_missing,
    take_clip,
    take_file,
)
from engine.enrollment.processing import TARGET_LUFS, noise_reduced, process

__all__ = [
    "NEEDED_VOICED_S",
    "TARGET_LUFS",
    "WANTED_VOICED_S",
    "Assessment",
    "RoomNoise",
    "Take",
    "as_flac",
    "assess",
    "blend",
    "blended",
    "check_takes",
    "enroll",
    "find_recordings",
    "improve",
    "judge_room",
    "noise_reduced",
    "preview",
    "process",
    "still_missing",
    "take_clip",
    "take_file",
]
