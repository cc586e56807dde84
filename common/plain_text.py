"""Text that other people and files wrote, made fit for one line of a terminal, a log or a message."""

_UNDECODED = range(0xDC80, 0xDD00)
"""What Python puts for a byte of a file name that is not UTF-8."""


def printable(text: str) -> str:
    r"""Put `\xfc` for a byte that is not UTF-8, and a space for every other character that cannot be printed.

    So the text stays in its line, steers no terminal and can be encoded.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return f"\\x{ord(character) - 0xDC00:02x}" if ord(character) in _UNDECODED else " "
