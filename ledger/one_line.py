"""Names that others chose, in messages of one line."""

__all__ = ["one_line"]


def one_line(name: object) -> str:
    """A path or other foreign name for a message: what does not print (line breaks, stray bytes) is escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in str(name)
    )
