"""Turns the bytes of a file into text, whatever encoding they are in."""

# The likely ones, the likelier first: where several fit equally well, the first is taken.
_ENCODINGS = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp932", "gb18030",
    "big5", "cp949", "utf_16_le", "utf_16_be", "mac_roman",
)  # fmt: skip
_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_SAMPLE = 1 << 20  # bytes that are looked at to find the encoding
_NAMES = {"cp1252": "Windows-1252", "utf_16_le": "UTF-16", "utf_16_be": "UTF-16"}


def is_utf16(start: bytes) -> bool:
    """Whether a file that starts so is UTF-16, with a byte order mark or without one."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    even, odd = start[0:200:2], start[1:200:2]
    # Every second byte of Western text is 0 in UTF-16, and none is elsewhere.
    return min(even.count(0), odd.count(0)) == 0 and max(even.count(0), odd.count(0)) * 2 > len(odd)


def decoded(data: bytes) -> tuple[str, str | None]:
    """The text, and a remark if it was not UTF-8.

    Raises:
        UnicodeDecodeError: it is in no known encoding.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data.decode(encoding), "is UTF-16, not UTF-8: it was read as that"
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError:
        guessed = _guessed(data)
        if guessed is None:
            raise
    # What does not fit later on in a long file is shown as a replacement, not refused.
    text = data.decode(guessed, errors="replace")
    return text, f"is not UTF-8: it was read as {_NAMES.get(guessed, guessed)}"


def _guessed(data: bytes) -> str | None:
    from charset_normalizer import from_bytes  # noqa: PLC0415  (takes a while, and most is UTF-8)

    matches = from_bytes(data[:_SAMPLE], cp_isolation=list(_ENCODINGS), preemptive_behaviour=False)
    ranked = [
        (round(match.chaos, 1), -round(match.coherence, 1), place, encoding)
        for match in matches
        for place, encoding in enumerate(_ENCODINGS)
        if encoding in match.could_be_from_charset
    ]
    return min(ranked)[-1] if ranked else None
