"""What recorders write: one file a format, each turns bytes into recordings."""

from embedding_assets.recorders.formats import (
    assemblyai,
    aws_transcribe,
    deepgram,
    fathom,
    fathom_text,
    fireflies,
    gong,
    google_meet,
    grain,
    granola,
    json_lines,
    otter,
    read_ai,
    tldv,
    whisper,
)

JSON_FORMATS = (
    fathom.FORMAT,
    fireflies.FORMAT,
    gong.FORMAT,
    tldv.FORMAT,
    granola.FORMAT,
    grain.FORMAT,
    read_ai.FORMAT,
    assemblyai.FORMAT,
    deepgram.FORMAT,
    aws_transcribe.FORMAT,
    whisper.FORMAT,
    json_lines.FORMAT,
)
"""The first one that recognises a document reads it."""

TEXT_FORMATS = (google_meet.FORMAT, otter.FORMAT, fathom_text.FORMAT)
