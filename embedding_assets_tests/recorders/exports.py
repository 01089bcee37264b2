"""A small export of each recorder, in the form it documents or writes, with words of our own."""

import json
from pathlib import Path
from typing import Any

SAID = ["Morning all.", "Which depot?"]

GOOGLE_MEET = """Depot audit - 2026/03/04 10:00 GMT-5 - Transcript
Attendees
Ines Okoro, Mikkel Lund

Transcript

This editable transcript was computer generated and might contain errors.

00:00:00

Ines Okoro: Morning all.
It goes on, with a plan: count first.
Mikkel Lund: Which depot?

00:05:02

Late Comer: I am late.
Late Comer: Sorry.

Transcription ended after 00:45:12
"""

OTTER = """Depot audit
Wed, Mar 4, 2026 10:00AM - 24:10

SUMMARY KEYWORDS
audit, depot

SPEAKERS
Ines Okoro, Unknown Speaker

Ines Okoro  00:03
Morning all.

Unknown Speaker  1:00:09
Which depot?

Transcribed by https://otter.ai
"""

FATHOM_TEXT = """Depot audit - March 4
VIEW RECORDING - 31 mins (No highlights): https://example.com/calls/1

---

0:00 - Ines Okoro (Acme)
  Morning all.

1:00:09 - Mikkel Lund
  Which depot?
  The large one.
"""

SBV = """0:00:01.000,0:00:03.000
Ines Okoro: Morning all.

0:00:03.500,0:00:05.000
Mikkel Lund: Which depot?
"""

GRAPH_METADATA = """WEBVTT

00:00:16.246 --> 00:00:17.726
{"startDateTime": "2026-03-04T10:00:16.246Z", "endDateTime": "2026-03-04T10:00:17.726Z",
 "speakerName": "Ines Okoro", "spokenText": "Morning all.", "spokenLanguage": "en-us"}

00:00:18.000 --> 00:00:19.000
{"speakerName": "Mikkel Lund", "spokenText": "Which depot?", "spokenLanguage": "en-us"}
"""

WEBEX = """WEBVTT

1 "Ines Okoro" (1234567)
00:00:01.000 --> 00:00:03.000
Morning all.

2 "Mikkel Lund" (7654321)
00:00:03.000 --> 00:00:05.000
Which depot?
"""

FIREFLIES = {
    "data": {
        "transcript": {
            "id": "ff_1",
            "title": "Depot audit",
            "date": 1772618400000,
            "duration": 24.5,
            "host_email": "Ines@example.com",
            "participants": ["ines@example.com", "mikkel@example.org"],
            "transcript_url": "https://example.com/view/ff_1",
            "sentences": [
                {
                    "speaker_name": "Ines Okoro",
                    "text": "Morning all.",
                    "start_time": 3.1,
                    "end_time": 4.2,
                },
                {"speaker_name": None, "speaker_id": 1, "text": "Which depot?", "start_time": 9},
            ],
        }
    }
}

GONG = {
    "callTranscripts": [
        {
            "callId": "77",
            "transcript": [
                {
                    "speakerId": "6",
                    "sentences": [{"start": 460230, "end": 462343, "text": "Morning all."}],
                },
                {
                    "speakerId": "7",
                    "sentences": [{"start": 462980, "end": 465674, "text": "Which depot?"}],
                },
            ],
        }
    ],
    "calls": [
        {
            "metaData": {
                "id": "77",
                "title": "Depot audit",
                "started": "2026-03-04T10:00:00Z",
                "duration": 1800,
                "primaryUserId": "u1",
                "language": "eng",
            },
            "parties": [
                {
                    "speakerId": "6",
                    "name": "Ines Okoro",
                    "emailAddress": "ines@example.com",
                    "affiliation": "Internal",
                    "userId": "u1",
                },
                {"speakerId": "7", "name": "Mikkel Lund", "affiliation": "External"},
            ],
        }
    ],
}

TLDV = {
    "id": "t1",
    "meetingId": "m1",
    "data": [
        {"speaker": "Ines Okoro", "text": "Morning all.", "startTime": 3, "endTime": 4},
        {"speaker": "Mikkel Lund", "text": "Which depot?", "startTime": 9, "endTime": 10},
    ],
    "meeting": {
        "name": "Depot audit",
        "happenedAt": "2026-03-04T10:00:00Z",
        "organizer": {"name": "Ines Okoro", "email": "ines@example.com"},
        "invitees": [{"name": "Mikkel Lund", "email": "mikkel@example.org"}],
    },
}

GRANOLA = {
    "id": "not_1",
    "title": "Depot audit",
    "owner": {"name": "Ines Okoro", "email": "ines@example.com"},
    "created_at": "2026-03-04T11:00:00Z",
    "attendees": [{"name": "Mikkel Lund", "email": "mikkel@example.org"}],
    "transcript": [
        {
            "speaker": {"source": "microphone"},
            "text": "Morning all.",
            "start_time": "2026-03-04T10:00:00Z",
        },
        {
            "speaker": {"source": "speaker", "diarization_label": "Speaker A"},
            "text": "Which depot?",
            "start_time": "2026-03-04T10:00:09Z",
        },
    ],
}

GRAIN = [
    {"participant_id": "p1", "speaker": "Ines", "start": 3100, "end": 4200, "text": "Morning all."},
    {"participant_id": "p2", "speaker": "Bo", "start": 9000, "end": 9900, "text": "Which depot?"},
]

READ_AI = {
    "session_id": "01J",
    "trigger": "meeting_end",
    "title": "Depot audit",
    "start_time": "2026-03-04T10:00:00Z",
    "end_time": "2026-03-04T10:30:00Z",
    "owner": {"name": "Ines Okoro", "email": "ines@example.com"},
    "participants": [{"name": "Mikkel Lund", "email": "mikkel@example.org"}],
    "transcript": {
        "speaker_blocks": [
            {
                "start_time": 1772618403000,
                "end_time": "1772618404000",
                "speaker": {"name": "Ines Okoro"},
                "words": "Morning all.",
            },
            {
                "start_time": "2026-03-04T10:00:09Z",
                "end_time": None,
                "speaker": {"name": "Mikkel Lund"},
                "words": "Which depot?",
            },
        ]
    },
}

WHISPER = {
    "language": "english",
    "duration": 12.5,
    "text": "Morning all. Which depot?",
    "segments": [
        {"id": 0, "start": 3.1, "end": 4.2, "text": " Morning all."},
        {"id": 1, "start": 9.0, "end": 9.9, "text": " Which depot?"},
    ],
}

WHISPER_CPP = {
    "result": {"language": "en"},
    "transcription": [
        {"offsets": {"from": 3100, "to": 4200}, "text": " Morning all."},
        {"offsets": {"from": 9000, "to": 9900}, "text": " Which depot?"},
    ],
}

WHISPERX = {
    "language": "en",
    "word_segments": [],
    "segments": [
        {"start": 3.1, "end": 4.2, "text": " Morning all.", "speaker": "SPEAKER_00"},
        {"start": 9.0, "end": 9.9, "text": " Which depot?", "speaker": "SPEAKER_01"},
    ],
}

ASSEMBLYAI = {
    "id": "aa-1",
    "status": "completed",
    "audio_duration": 300,
    "language_code": "en_us",
    "utterances": [
        {"speaker": "A", "start": 3100, "end": 4200, "text": "Morning all."},
        {"speaker": "B", "start": 9000, "end": 9900, "text": "Which depot?"},
    ],
}

ASSEMBLYAI_WORDS = {
    "id": "aa-2",
    "status": "completed",
    "utterances": None,
    "words": [
        {"text": "Morning", "start": 3100, "end": 3500, "speaker": None},
        {"text": "all.", "start": 3600, "end": 4200, "speaker": None},
        {"text": "Which", "start": 9000, "end": 9300, "speaker": None},
        {"text": "depot?", "start": 9400, "end": 9900, "speaker": None},
    ],
}

DEEPGRAM = {
    "metadata": {"request_id": "dg-1", "created": "2026-03-04T10:00:00Z", "duration": 20},
    "results": {
        "channels": [],
        "utterances": [
            {"start": 3.1, "end": 4.2, "transcript": "Morning all.", "speaker": 0},
            {"start": 9.0, "end": 9.9, "transcript": "Which depot?", "speaker": 1},
        ],
    },
}

DEEPGRAM_CHANNELS = {
    "metadata": {"request_id": "dg-2"},
    "results": {
        "channels": [
            {
                "alternatives": [
                    {
                        "words": [
                            {"word": "which", "punctuated_word": "Which", "start": 9.0, "end": 9.3},
                            {
                                "word": "depot",
                                "punctuated_word": "depot?",
                                "start": 9.4,
                                "end": 9.9,
                            },
                        ]
                    }
                ]
            },
            {
                "alternatives": [
                    {
                        "words": [
                            {
                                "word": "morning",
                                "punctuated_word": "Morning",
                                "start": 3.1,
                                "end": 3.5,
                            },
                            {"word": "all", "punctuated_word": "all.", "start": 3.6, "end": 4.2},
                        ]
                    }
                ]
            },
        ]
    },
}


def _aws_word(content: str, start: str, end: str, speaker: str) -> dict[str, Any]:
    return {
        "type": "pronunciation",
        "start_time": start,
        "end_time": end,
        "alternatives": [{"content": content}],
        "speaker_label": speaker,
    }


_FULL_STOP = {"type": "punctuation", "alternatives": [{"content": "."}]}
AWS_TRANSCRIBE = {
    "jobName": "aws-2",
    "status": "COMPLETED",
    "results": {
        "transcripts": [{"transcript": "Morning all. Which depot."}],
        "items": [
            _aws_word("Morning", "3.1", "3.5", "spk_0"),
            _aws_word("all", "3.6", "4.2", "spk_0"),
            _FULL_STOP,
            _aws_word("Which", "9.0", "9.3", "spk_1"),
            _aws_word("depot", "9.4", "9.9", "spk_1"),
            _FULL_STOP,
        ],
    },
}

EXPORTS: dict[str, Any] = {
    "meet.txt": GOOGLE_MEET,
    "otter.txt": OTTER,
    "fathom.txt": FATHOM_TEXT,
    "meet.sbv": SBV,
    "teams.vtt": GRAPH_METADATA,
    "webex.vtt": WEBEX,
    "fireflies.json": FIREFLIES,
    "gong.json": GONG,
    "tldv.json": TLDV,
    "tldv-webhook.json": {"id": "w", "event": "TranscriptReady", "data": TLDV},
    "granola.json": GRANOLA,
    "grain.json": GRAIN,
    "read-ai.json": READ_AI,
    "whisper.json": WHISPER,
    "whisper-cpp.json": WHISPER_CPP,
    "whisperx.json": WHISPERX,
    "assemblyai.json": ASSEMBLYAI,
    "assemblyai-words.json": ASSEMBLYAI_WORDS,
    "deepgram.json": DEEPGRAM,
    "deepgram-channels.json": DEEPGRAM_CHANNELS,
    "aws.json": AWS_TRANSCRIBE,
}
"""By a file's name: text, or a JSON document."""


def write(folder: Path, name: str) -> Path:
    """Writes one of the exports as a file whose name tells nothing of its format."""
    content = EXPORTS[name]
    path = folder / f"call-{name.replace('.', '-')}.dat"
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path
