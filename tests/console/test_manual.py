"""The manual over HTTP."""

import httpx2
import pytest

from console.manual import pages
from tests.support.gateway import Gateway

pytestmark = pytest.mark.anyio


async def test_every_page_is_served_as_it_stands(gateway: Gateway) -> None:
    """`/docs` is the map, each page has its address, and `/llms.txt` lists them all; what is no page is 404, wherever it points."""
    texts = pages()
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=60) as client:
        assert (await client.get("/docs")).text == texts["index.md"]
        for name, text in texts.items():
            answer = await client.get(f"/docs/{name}")
            assert (answer.status_code, answer.text) == (200, text)
            assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
        listed = (await client.get("/llms.txt")).text
        assert all(f"(/docs/{name})" in listed for name in texts)
        whole = (await client.get("/llms-full.txt")).text
        assert all(text in whole for text in texts.values())
        for wrong in ("/docs/nothing.md", "/docs/..%2fsettings.py", "/docs/%2e%2e/settings.py"):
            assert (await client.get(wrong)).status_code == 404
