"""What a request for a file is answered, decided without looking at any content: a value of what is known of the files and of the request."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from domain.apps import content_types
from domain.apps.blobs import Blob
from domain.apps.manifest import PUBLIC_TOKENS
from domain.apps.sites import SiteFile

Fields = list[tuple[bytes, bytes]]

DEFAULT_CSP = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob:; "
    "connect-src 'self' {api}; worker-src 'self' blob:; frame-ancestors 'self'; base-uri 'self'; form-action 'self'; object-src 'none'"
)
"""What a page may load until its maker's manifest says otherwise: its own files, and calls to this gateway."""
ABOUT = "/.well-known/tallygate.json"
FOREVER = b"public, max-age=31536000, immutable"
ALWAYS_ASK = b"public, max-age=0, must-revalidate"
LARGEST_IN_MEMORY_BYTES = 2 * 1024 * 1024
_HASHED = re.compile(r"[.\-_]([A-Za-z0-9_-]{8,64})\.[A-Za-z0-9.]{1,12}\Z")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, its fields, and the part of an object that is the body: none for `blob` None."""

    status: int
    fields: Fields
    blob: Blob | None = None
    encoding: str | None = None
    start: int = 0
    end: int = 0
    text: bytes = b""


class Rules:
    """A manifest, made ready for many requests; `about` is what is answered at ABOUT, so that a page needs no address of the gateway built into it."""

    def __init__(self, slug: str, manifest: Mapping[str, Any], api: str, base_url: str) -> None:
        tokens = f"{base_url}/v1/apps/{slug}/tokens" if manifest.get(PUBLIC_TOKENS) is True else None
        self.about = msgspec.json.encode({"appId": slug, "baseUrl": base_url, "tokens": tokens})
        self.entry = str(manifest.get("entry", "index.html"))
        self.spa = manifest.get("spaFallback", False) is True
        self.not_found = str(manifest.get("notFound", "404.html"))
        self._headers = [
            (_glob(rule["path"]), [(name.encode(), value.encode("ascii")) for name, value in rule["set"].items()]) for rule in manifest.get("headers", ())
        ]
        self._redirects = [(str(rule["from"]), str(rule["to"]), int(rule.get("status", 307))) for rule in manifest.get("redirects", ())]
        self._defaults: Fields = [
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"strict-origin-when-cross-origin"),
            (b"cross-origin-opener-policy", b"same-origin-allow-popups"),
            (b"permissions-policy", b"camera=(), geolocation=(), payment=(), usb=()"),
        ]
        self._csp = (b"content-security-policy", DEFAULT_CSP.format(api=api).encode())

    def redirect(self, path: str, query: bytes) -> Answer | None:
        """Return the redirect that holds for a path."""
        for source, target, status in self._redirects:
            if source.endswith("/*"):
                if not path.startswith(source[:-1]):
                    continue
                rest = path[len(source) - 1 :]
            elif source == path:
                rest = ""
            else:
                continue
            place = with_query(target.replace("*", _quoted(rest)), query)
            if place.startswith("//"):  # what `*` stands for cannot lead to another host
                return None
            return Answer(status, [(b"location", place.encode("latin-1", "replace")), (b"cache-control", b"no-cache"), *self._defaults])
        return None

    def fields(self, path: str, *, document: bool) -> Fields:
        """Return the fields of an answer to a path: the defaults, then what the manifest sets, later rules over earlier ones."""
        found = dict([*self._defaults, *([self._csp] if document else [])])
        for pattern, wanted in self._headers:
            if pattern.match(path):
                found.update(wanted)
        return list(found.items())


@functools.lru_cache(maxsize=1000)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")) + r"\Z", re.DOTALL)


def with_query(place: str, query: bytes) -> str:
    """Return where a visitor is sent who asked with a query: it goes along, before a fragment, unless the place has one of its own."""
    address, mark, fragment = place.partition("#")
    return place if not query or "?" in address else f"{address}?{query.decode('latin-1')}{mark}{fragment}"


def _quoted(rest: str) -> str:
    return "".join(character if re.fullmatch(r"[A-Za-z0-9._~/-]", character) else "".join(f"%{byte:02X}" for byte in character.encode()) for character in rest)


def path_of(raw_path: bytes) -> str | None:
    """Return the path of a request, decoded once; None for one that could mean another file somewhere: dots, doubled slashes, bad escapes."""
    if not raw_path.startswith(b"/") or re.search(rb"%(?![0-9A-Fa-f]{2})", raw_path) or re.search(rb"%(2f|5c|00)", raw_path, re.IGNORECASE):
        return None
    try:
        path = unquote_to_bytes(raw_path).decode("utf-8")
    except UnicodeDecodeError:
        return None
    if "\\" in path or any(ord(character) < 0x20 or ord(character) == 0x7F for character in path):
        return None
    parts = path.split("/")[1:]
    if any(part in (".", "..") for part in parts) or "" in parts[:-1]:
        return None
    return path


def is_hashed(path: str) -> bool:
    """Tell whether a file's name carries a digest of its content, as bundlers write it: letters and digits, or both cases, mixed."""
    found = _HASHED.search(path.rsplit("/", 1)[-1])
    if found is None:
        return False
    mark = found[1]
    digits = any(character.isdigit() for character in mark)
    upper, lower = any(character.isupper() for character in mark), any(character.islower() for character in mark)
    return (digits and (upper or lower)) or (upper and lower)


def choose(files: Mapping[str, SiteFile], rules: Rules, path: str) -> tuple[SiteFile | None, int, str | None]:
    """Return the file for a path with its status, or the place where it is with a slash: `(file, status, place)`."""
    name = path[1:]
    if name == "":
        found = files.get(rules.entry)
    elif name.endswith("/"):
        found = files.get(f"{name}index.html")
    else:
        found = files.get(name)
        if found is None and f"{name}/index.html" in files:
            return None, 308, f"/{_quoted(name)}/"
        if found is None and "." not in name.rsplit("/", 1)[-1]:
            found = files.get(f"{name}.html")
    if found is not None:
        return found, 200, None
    last = name.rsplit("/", 1)[-1]
    if rules.spa and ("." not in last) and rules.entry in files:
        return files[rules.entry], 200, None
    return files.get(rules.not_found), 404, None


def encoding_for(accepted: str, blob: Blob) -> str | None:
    """Return the encoding to answer in, None for none: the smallest that is kept and that the client takes."""
    if blob.brotli_bytes is None and blob.gzip_bytes is None:
        return None
    weights = _weights(accepted)
    kept = [("br", blob.brotli_bytes), ("gzip", blob.gzip_bytes)]
    wanted = [(weights.get(name, weights.get("*", 0.0)), -size, name) for name, size in kept if size is not None]
    best = max((each for each in wanted if each[0] > 0), default=None)
    return best[2] if best and best[0] >= weights.get("identity", 0.0) else None


@functools.lru_cache(maxsize=500)
def _weights(accepted: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        if name:
            weights[name] = weight
    return weights


def answer(file: SiteFile, status: int, rules: Rules, path: str, headers: Mapping[bytes, bytes], *, version: bool) -> Answer:
    """Return the answer with a file: whole, a part of it, or that it has not changed."""
    blob = file.blob
    document = file.content_type in ("text/html", "application/xhtml+xml", "image/svg+xml")
    fields = rules.fields(path, document=document)
    named = {name for name, _ in fields}
    if b"cache-control" not in named:
        lasting = status == 200 and not document and (is_hashed(file.path) or version)
        fields.append((b"cache-control", FOREVER if lasting else ALWAYS_ASK))
    fields.append((b"content-type", content_types.field(file.content_type).encode()))
    shrunk = blob.brotli_bytes is not None or blob.gzip_bytes is not None
    if shrunk:
        fields.append((b"vary", b"accept-encoding"))
    span = headers.get(b"range")
    encoding = None if span and status == 200 else encoding_for(headers.get(b"accept-encoding", b"").decode("latin-1"), blob)
    etag = f'"{blob.sha256[:32]}{"" if encoding is None else f"-{encoding}"}"'.encode()
    fields += [(b"etag", etag), (b"accept-ranges", b"bytes")]
    if status == 200 and _matches(headers.get(b"if-none-match"), blob):
        return Answer(304, [field for field in fields if field[0] not in (b"content-type",)])
    size = {None: blob.bytes, "gzip": blob.gzip_bytes, "br": blob.brotli_bytes}[encoding]
    assert size is not None
    if encoding is not None:
        fields.append((b"content-encoding", encoding.encode()))
    start, end = 0, size
    if span and status == 200 and headers.get(b"if-range", etag) == etag:
        wanted = _span(span, size)
        if wanted == ():
            return Answer(416, [*fields, (b"content-range", f"bytes */{size}".encode()), (b"content-length", b"0")])
        if wanted is not None:
            start, end = wanted
            status = 206
            fields.append((b"content-range", f"bytes {start}-{end - 1}/{size}".encode()))
    fields.append((b"content-length", str(end - start).encode()))
    return Answer(status, fields, blob, encoding, start, end)


def _matches(asked: bytes | None, blob: Blob) -> bool:
    if asked is None:
        return False
    tags = [tag.strip().removeprefix(b"W/") for tag in asked.split(b",")]
    mine = blob.sha256[:32]
    return b"*" in tags or any(f'"{mine}{ending}"'.encode() in tags for ending in ("", "-br", "-gzip"))


def _span(asked: bytes, size: int) -> tuple[int, int] | Sequence[int] | None:
    """Return the part asked for, `()` when there is nothing of it, None for a way of asking that is not understood or asks for several."""
    found = _RANGE.fullmatch(asked.decode("latin-1").strip())
    if found is None or found[0] == "bytes=-":
        return None
    if found[1] == "":
        length = min(int(found[2]), size)
        return (size - length, size) if length else ()
    start = int(found[1])
    end = min(int(found[2]) + 1, size) if found[2] else size
    if found[2] and int(found[2]) < start:
        return None
    return (start, end) if start < size else ()
