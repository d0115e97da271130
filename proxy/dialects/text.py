"""The size of the text that an answer brings, piece by piece."""

from collections.abc import Callable


class TextSize:
    """Counts code points and lines; pieces of one text may come in any cut, several texts may come interleaved by a small number."""

    __slots__ = ("_characters", "_line_feeds", "_open", "_pieces")

    # An upstream chooses the numbers: they must not choose our memory. No real answer interleaves as many texts.
    _TEXTS = 1024
    # Small pieces are counted together, which is cheaper than one by one.
    _PIECES = 256
    _SMALL_CHARACTERS = 1024

    def __init__(self) -> None:
        self._characters = 0
        self._line_feeds = 0
        self._open: dict[int, bool] = {}
        self._pieces: list[str] = []

    def add(self, piece: str, text: int = 0) -> None:
        """Count a piece of the text with that number."""
        if text:
            self._count(piece, text)
            return
        self._pieces.append(piece)
        if len(piece) > self._SMALL_CHARACTERS or len(self._pieces) >= self._PIECES:
            self._count_pieces()

    @property
    def later(self) -> Callable[[str], None]:
        """What takes pieces of text 0 at the least cost: they are counted when somebody asks, or `add` is called, which has to be every few kilobytes."""
        return self._pieces.append

    def end_line(self) -> None:
        """Say that what follows under number 0 is another text, which begins a line of its own."""
        self._count_pieces()
        self._line_feeds += self._open.pop(0, False)

    @property
    def characters(self) -> int:
        """Code points so far."""
        self._count_pieces()
        return self._characters

    @property
    def lines(self) -> int:
        """Lines so far: line feeds, and each text's last line if it has characters and no line feed yet."""
        self._count_pieces()
        return self._line_feeds + sum(self._open.values())

    def _count_pieces(self) -> None:
        if self._pieces:
            self._count("".join(self._pieces), 0)
            self._pieces.clear()

    def _count(self, piece: str, text: int) -> None:
        if piece:
            self._characters += len(piece)
            self._line_feeds += piece.count("\n")
            self._open[text % self._TEXTS] = piece[-1] != "\n"
