"""Parts of chat messages as content blocks of the Messages API."""

import re

import msgspec

from proxy.translation.base import refused

Block = dict[str, object]

_NOTHING = msgspec.Raw()
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w-]+=[^;,]*)*;base64,(.*)", re.DOTALL)


class ImageUrl(msgspec.Struct):
    """Where an image is; how closely to look at it has no counterpart."""

    url: str = ""


class File(msgspec.Struct):
    """A file's bytes; one in OpenAI's own store cannot be reached."""

    file_data: str | None = None
    filename: str | None = None


class Part(msgspec.Struct):
    """A piece of a message."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | str | None = None
    file: File | None = None
    cache_control: msgspec.Raw = _NOTHING


def listed(content: str | list[Part] | None) -> list[Part]:
    """Give content as parts; a text is one part."""
    if isinstance(content, str):
        return [Part("text", text=content)]
    return content or []


def is_given(value: msgspec.Raw) -> bool:
    """Tell whether a field is there and not null."""
    return bytes(value) not in (b"", b"null")


def blocks_of(part: Part, where: str) -> list[Block]:
    """Translate a part, with its `cache_control`; an empty text is no block. Raises BadRequest."""
    block = _block(part, where)
    if block is None:
        return []
    return [{**block, "cache_control": part.cache_control} if is_given(part.cache_control) else block]


def _block(part: Part, where: str) -> Block | None:
    match part.type:
        case "text" | "refusal":
            text = part.text or part.refusal
            return {"type": "text", "text": text} if text else None
        case "image_url":
            url = part.image_url.url if isinstance(part.image_url, ImageUrl) else part.image_url or ""
            return {"type": "image", "source": _image_source(url, where)}
        case "file":
            return _document(part.file or File(), where)
        case _:
            raise refused(where, f"A part of type `{part.type}`")


def _image_source(url: str, where: str) -> Block:
    if url.startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    data = _DATA_URL.fullmatch(url)
    if data is None:
        raise refused(where, "An image that is neither a web address nor base64 data")
    return {"type": "base64", "media_type": data[1], "data": data[2]}


def _document(file: File, where: str) -> Block:
    data = _DATA_URL.fullmatch(file.file_data or "")
    if data is None or data[1] != "application/pdf":
        raise refused(where, "A file that is not the base64 data of a PDF")
    block: Block = {"type": "document", "source": {"type": "base64", "media_type": data[1], "data": data[2]}}
    return {**block, "title": file.filename} if file.filename else block
