"""What media type a file is served with: a table of our own, so that no machine's configuration changes an answer."""

_TEXT = {
    "html": "text/html",
    "htm": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "mjs": "text/javascript",
    "cjs": "text/javascript",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "vtt": "text/vtt",
    "ics": "text/calendar",
}
_OTHER = {
    **dict.fromkeys(("json", "map"), "application/json"),
    "webmanifest": "application/manifest+json",
    "jsonld": "application/ld+json",
    "xml": "application/xml",
    "xhtml": "application/xhtml+xml",
    "rss": "application/rss+xml",
    "atom": "application/atom+xml",
    "wasm": "application/wasm",
    "pdf": "application/pdf",
    "svg": "image/svg+xml",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
    "ico": "image/x-icon",
    "bmp": "image/bmp",
    "woff": "font/woff",
    "woff2": "font/woff2",
    "ttf": "font/ttf",
    "otf": "font/otf",
    "eot": "application/vnd.ms-fontobject",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "mov": "video/quicktime",
    "glb": "model/gltf-binary",
    "gltf": "model/gltf+json",
    "zip": "application/zip",
    "gz": "application/gzip",
    "tar": "application/x-tar",
}
UNKNOWN = "application/octet-stream"
COMPRESSED_WELL = ("text/", "application/json", "application/manifest+json", "application/ld+json", "application/xml", "application/xhtml+xml")
_ALSO = frozenset(
    {"application/rss+xml", "application/atom+xml", "application/wasm", "image/svg+xml", "image/bmp", "font/ttf", "font/otf", "model/gltf+json"}
    | {"application/vnd.ms-fontobject", "image/x-icon"}
)
KNOWN = frozenset({*_TEXT.values(), *_OTHER.values(), UNKNOWN})


def of_path(path: str) -> str:
    """Return the media type of a file by the ending of its name, without parameters."""
    ending = path.rsplit("/", 1)[-1].rpartition(".")[2].lower() if "." in path.rsplit("/", 1)[-1] else ""
    return _TEXT.get(ending) or _OTHER.get(ending) or UNKNOWN


def field(media_type: str) -> str:
    """Return what `Content-Type` says: text is UTF-8."""
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type


def shrinks(media_type: str) -> bool:
    """Tell whether content of this type is worth compressing."""
    return media_type.startswith(COMPRESSED_WELL) or media_type in _ALSO
