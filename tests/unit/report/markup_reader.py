"""Reads a page back: elements, their text, and whether all of them are closed."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "rect", "line", "circle", "path"}


class Page(HTMLParser):
    """What is in a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.unclosed: list[str] = []
        self._open: list[str] = []
        self.by_id: dict[str, str] = {}
        self.feed(text)
        self.close()
        self.unclosed += self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.unclosed.append(tag)

    def handle_data(self, data):
        if self._open and self._open[-1] not in {"style", "script"}:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All text that a person sees."""
        return " ".join(" ".join(self.texts).split())

    def attributes(self, name: str) -> list[str]:
        """The values of one attribute, wherever it is."""
        return [attributes[name] or "" for _, attributes in self.elements if name in attributes]

    def classed(self, word: str) -> list[tuple[str, dict]]:
        """Elements that have a class."""
        return [item for item in self.elements if word in (item[1].get("class") or "").split()]
