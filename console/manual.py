"""The manual as this very version has it: the pages of docs/, as Markdown, for people in a hurry and for agents."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

DOCS = Path(__file__).resolve().parent.parent / "docs"
FIRST = "index.md"


def pages(folder: Path = DOCS) -> dict[str, str]:
    """Return each page's text by its path below docs/, the map first."""
    paths = sorted(folder.rglob("*.md"), key=lambda path: (path.name != FIRST or path.parent != folder, path))
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def _title(text: str) -> str:
    return next((line.removeprefix("# ").strip() for line in text.splitlines() if line.startswith("# ")), "")


def routes() -> list[BaseRoute]:
    """Return `/docs`, each page at `/docs/<page>.md`, their list at `/llms.txt`, and all of them in one at `/llms-full.txt`."""
    texts = pages()
    listed = "# Tallygate\n\n" + "".join(f"- [{_title(text)}](/docs/{name})\n" for name, text in texts.items())
    whole = "\n\n".join(texts.values())

    def answer(text: str) -> Response:
        return PlainTextResponse(text, media_type="text/markdown", headers={"x-content-type-options": "nosniff", "cache-control": "public, max-age=300"})

    async def first(_: Request) -> Response:
        return answer(texts[FIRST])

    async def page(request: Request) -> Response:
        text = texts.get(request.path_params["name"])
        return PlainTextResponse("There is no such page; /docs lists them.\n", 404) if text is None else answer(text)

    async def brief(_: Request) -> Response:
        return answer(listed)

    async def full(_: Request) -> Response:
        return answer(whole)

    return [Route("/docs", first), Route("/docs/{name:path}", page), Route("/llms.txt", brief), Route("/llms-full.txt", full)]
