"""Voices made from voices: improved, mixed, and heard before they are kept."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.errors import EnrollmentError
from engine.jobs import JobContext
from engine.models import lease
from engine.signal import AudioClip, read_audio
from engine.store import Store, VoiceRecord

if TYPE_CHECKING:
    from engine.conversion import Voice
    from engine.conversion.adaptation import Improvement

_NEEDED_S = 15.0


def improve(store: Store, record: VoiceRecord, *, ctx: JobContext | None = None) -> "Improvement":
    """Fine-tune a voice on its own recordings and keep it only when held-out seconds came closer to it.

    `Store.undo_improvement` goes back.

    Args:
        store: Where the voice is.
        record: The voice.
        ctx: Progress and cancellation; a cancelled run changes nothing.

    Returns:
        What came of it; `kept` says whether the store has the new voice.

    Raises:
        EnrollmentError: no recordings, or too few seconds, are kept.
        EngineBusyError: another job has the models.
    """
    from engine.conversion.adaptation import improve_voice

    ctx = ctx or JobContext()
    recordings = store.recordings(record)
    if sum(one.voiced_seconds for one in recordings) < _NEEDED_S:
        raise EnrollmentError(
            f"'{record.name}' has too few recordings to improve it with.",
            hint=f"At least {_NEEDED_S:.0f} s are needed; make the voice again from more.",
        )
    with lease():
        voice = store.load_voice(record, ctx.part(0.0, 0.1))
        clips = [read_audio(one.processed) for one in recordings]
        outcome = improve_voice(voice, clips, ctx=ctx.part(0.1, 1.0))
    if outcome.kept:
        store.replace_voice(record, outcome.voice, similarity=outcome.similarity_after)
    return outcome


def blended(store: Store, name: str, parts: Sequence[tuple[VoiceRecord, float]]) -> "Voice":
    """A mix that is not kept yet, for a preview.

    Args:
        store: Where the voices are.
        name: Of the mix.
        parts: Two or more voices with weights above 0.
    """
    from engine.conversion import blend_voices

    voices = [store.load_voice(record) for record, _ in parts]
    return blend_voices(voices, [weight for _, weight in parts], name=name)


def blend(store: Store, name: str, parts: Sequence[tuple[VoiceRecord, float]]) -> VoiceRecord:
    """Mix voices into a new one and save it; its consent note names where it comes from.

    Raises:
        StoreError: the name is taken, or the disk refuses.
    """
    name = store.check_name(name)
    total = sum(weight for _, weight in parts)
    shares = ", ".join(f"{weight / total:.0%} {record.name}" for record, weight in parts)
    consents = [f"{record.name}: {record.consent}" for record, _ in parts if record.consent]
    return store.add_voice(
        blended(store, name, parts),
        consent=" ".join([f"A blend of {shares}.", *consents])[:2000],
        seconds=sum(record.seconds for record, _ in parts),
        notes=f"Blend: {shares}",
        origin="blend",
    )


def preview(voice: "Voice", source: AudioClip, *, ctx: JobContext | None = None) -> AudioClip:
    """Convert a few seconds to hear what a voice sounds like; the pitch is moved to the voice's own.

    Args:
        voice: Any, kept or not.
        source: [1, N] of somebody speaking or singing.
        ctx: Progress and cancellation.

    Raises:
        EngineBusyError: another job has the models.
    """
    import numpy as np

    from engine.conversion import load_converter
    from engine.pitch import estimate_f0

    ctx = ctx or JobContext()
    with lease():
        f0 = estimate_f0(source, tracker="swift", ctx=ctx.part(0.0, 0.2))
        median = f0.median_hz()
        if median > 0 and voice.median_f0_hz > 0:
            f0 = f0.transposed(12.0 * float(np.log2(voice.median_f0_hz / median)))
        return load_converter("studio").convert(source, voice, f0, ctx=ctx.part(0.2, 1.0))
