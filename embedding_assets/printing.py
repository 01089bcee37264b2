"""Makes text that a recorder or a person supplied safe to print."""


def printable(text: str) -> str:
    """The text with a replacement character for each character that could steer the terminal.

    These are control characters, except the line feed, and those that reorder text.
    """
    return "".join(c if c == "\n" or c.isprintable() else "\ufffd" for c in text)
