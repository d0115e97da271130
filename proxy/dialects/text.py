"""The size of the text that an answer brings, piece by piece."""


class TextSize:
    """Counts code points and lines; pieces of one text may come in any cut, several texts may come interleaved by a small number."""

    __slots__ = ("_line_feeds", "_open", "characters")

    # An upstream chooses the numbers: they must not choose our memory. No real answer interleaves as many texts.
    _TEXTS = 1024

    def __init__(self) -> None:
        self.characters = 0
        self._line_feeds = 0
        self._open: dict[int, bool] = {}

    def add(self, piece: str, text: int = 0) -> None:
        """Count a piece of the text with that number."""
        if piece:
            self.characters += len(piece)
            self._line_feeds += piece.count("\n")
            self._open[text % self._TEXTS] = piece[-1] != "\n"

    def end_line(self) -> None:
        """Say that what follows under number 0 is another text, which begins a line of its own."""
        self._line_feeds += self._open.pop(0, False)

    @property
    def lines(self) -> int:
        """Lines so far: line feeds, and each text's last line if it has characters and no line feed yet."""
        return self._line_feeds + sum(self._open.values())
