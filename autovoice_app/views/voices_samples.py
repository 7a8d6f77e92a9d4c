"""What a voice sounds like: its own recording, or a sentence converted to it once and kept."""

from importlib.resources import files
from pathlib import Path

from PySide6.QtCore import QBuffer, QByteArray, QIODevice, Qt
from PySide6.QtGui import QImage, QImageWriter

from engine.errors import AudioFileError
from engine.jobs import JobContext
from engine.signal import AudioClip, read_audio, write_audio
from engine.store import Store, VoiceRecord

_PREVIEW_S = 7.0
_PICTURE_PIXELS = 160


def find_sample(store: Store, record: VoiceRecord, folder: Path) -> Path | None:
    """A file to play for a voice, or None when one must be made first.

    Args:
        store: Where the voice is.
        record: The voice.
        folder: Where made samples are kept.
    """
    recordings = store.recordings(record)
    if recordings:
        return max(recordings, key=lambda one: one.voiced_seconds).processed
    made = _made(record, folder)
    return made if made.exists() else None


def make_sample(store: Store, record: VoiceRecord, folder: Path, ctx: JobContext) -> Path:
    """Convert a sentence to a voice without recordings, and keep the result for the next time."""
    from engine.enrollment import preview

    converted = preview(store.load_voice(record, ctx), preview_source(), ctx=ctx)
    folder.mkdir(parents=True, exist_ok=True)
    path = _made(record, folder)
    write_audio(path, converted)
    return path


def preview_source() -> AudioClip:
    """The sung phrase that comes with the program, to convert for a preview."""
    return read_audio(Path(str(files("resources"))) / "demo" / "voice.opus", max_seconds=_PREVIEW_S).mono()


def small_picture(path: Path) -> bytes:
    """A square PNG of an image file, small enough for a card.

    Raises:
        AudioFileError: it is not a picture that can be read.
    """
    image = QImage(str(path))
    if image.isNull():
        raise AudioFileError(f"{path.name} is not a picture that can be read.", hint="Choose a PNG or JPEG file.")
    size = QImage.size(image)
    side = min(size.width(), size.height())
    square = image.copy((size.width() - side) // 2, (size.height() - side) // 2, side, side)
    square = square.scaled(
        _PICTURE_PIXELS,
        _PICTURE_PIXELS,
        Qt.AspectRatioMode.IgnoreAspectRatio,
        Qt.TransformationMode.SmoothTransformation,
    )
    data = QByteArray()
    buffer = QBuffer(data)
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    QImageWriter(buffer, b"PNG").write(square)
    return bytes(data.data())


def _made(record: VoiceRecord, folder: Path) -> Path:
    return folder / f"{record.tensors.stem[:40]}-{record.model_id[:12] or 'none'}.flac"
