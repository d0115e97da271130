"""Content blocks of the Messages API as parts of chat messages."""

import msgspec

from proxy.translation.base import refused

Part = dict[str, object]

_NOTHING = msgspec.Raw()


class Source(msgspec.Struct):
    """Where an image or a document comes from."""

    type: str = ""
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: "str | list[Block] | None" = None


class Block(msgspec.Struct):
    """A piece of a message; fields of blocks that are dropped or refused are not looked at."""

    type: str = ""
    text: str | None = None
    source: Source | None = None
    title: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = _NOTHING
    tool_use_id: str | None = None
    content: msgspec.Raw = _NOTHING
    is_error: bool | None = None


def listed(content: "str | list[Block] | None") -> list[Block]:
    """Give content as blocks; a text is one block, an empty one none."""
    if isinstance(content, str):
        return [Block("text", text=content)] if content else []
    return content or []


def as_content(parts: list[Part]) -> str | list[Part]:
    """Give parts as content: one text alone as a plain string, which every server takes."""
    if len(parts) == 1 and isinstance(text := parts[0].get("text"), str):
        return text
    return parts if parts else ""


def parts_of(block: Block, where: str) -> list[Part]:
    """Translate a text, image or document. Raises BadRequest for every other block, and for what lies in a provider's own store."""
    match block.type:
        case "text":
            return [{"type": "text", "text": block.text}] if block.text else []
        case "image":
            return [{"type": "image_url", "image_url": {"url": _image_url(block.source or Source(), where)}}]
        case "document":
            return _document(block, where)
        case _:
            raise refused(where, f"A block of type `{block.type}`")


def _image_url(source: Source, where: str) -> str:
    if source.type == "base64" and source.media_type and source.data:
        return f"data:{source.media_type};base64,{source.data}"
    if source.type == "url" and source.url:
        return source.url
    raise refused(where, f"An image from a source of type `{source.type}`")


def _document(block: Block, where: str) -> list[Part]:
    source = block.source or Source()
    if source.type == "text" and source.data:
        return [{"type": "text", "text": source.data}]
    if source.type == "content":
        return [part for inner in listed(source.content) for part in parts_of(inner, where)]
    if source.type == "base64" and source.data:
        media_type = source.media_type or "application/pdf"
        file = {"filename": block.title or "document.pdf", "file_data": f"data:{media_type};base64,{source.data}"}
        return [{"type": "file", "file": file}]
    raise refused(where, f"A document from a source of type `{source.type}`")
