"""The example chat as a visitor has it: a page, a message, a streamed answer, and usage that lands on the app."""

from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.browser.conftest import Chat
from tests.support.chromium import Browser
from tests.support.gateway import Gateway

pytestmark = pytest.mark.anyio

MESSAGE = "Say every word of this back to me, piece by piece, in many small pieces."
ANSWER = "[...document.querySelectorAll('#talk .assistant')].at(-1)?.textContent"
WATCH = """globalThis.steps = new Set(); new MutationObserver(() => steps.add(document.querySelector('#talk .assistant')?.textContent))
  .observe(document.querySelector('#talk'), { childList: true, subtree: true, characterData: true })"""


SHOWN = """{ app(slug: "chat") { id usage { totals { requests errors cost { microUsd } } } clientTokens(first: 50) { nodes { id } } } }"""
KILL = "mutation ($id: ID!, $off: Boolean!) { appUpdate(input: { id: $id, suspended: $off }) { app { suspendedAt } userErrors { message } } }"


async def ask(gateway: Gateway, chat: Chat, document: str, **variables: Any) -> Any:
    """Ask GraphQL as the chat's owner."""
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30) as client:
        body = {"query": document, "variables": variables}
        answer = await client.post("/graphql", json=body, headers={"Authorization": f"Bearer {chat.key}"})
    assert "errors" not in answer.json(), answer.text
    return answer.json()["data"]


async def used(gateway: Gateway, chat: Chat) -> tuple[int, int, int, int]:
    """The app's requests, failures, cost in microdollars, and tokens that work, as its owner reads them."""
    told = (await ask(gateway, chat, SHOWN))["app"]
    totals = told["usage"]["totals"]
    return totals["requests"], totals["errors"], totals["cost"]["microUsd"], len(told["clientTokens"]["nodes"])


async def test_a_message_is_answered_and_paid_for_by_the_app(browser: Browser, gateway: Gateway, chat: Chat) -> None:
    """Open the chat at its own origin, type, press Enter: the answer streams in, its cost is shown, and exactly that is the app's usage; a second one
    goes with the same token."""
    assert urlsplit(chat.url).hostname == "chat.localhost"
    requests, errors, spent, tokens = await used(gateway, chat)
    page = await browser.open(chat.url)
    await page.run(WATCH)
    await page.click("#message")
    await page.type(MESSAGE)
    await page.press_enter()
    await page.until(f"{ANSWER} === {MESSAGE!r}")
    assert await page.run("steps.size") > 3
    cost = int(await page.until(r"document.querySelector('#status').textContent.match(/cost (\d+) millionths/)?.[1]"))
    assert cost > 0
    assert await used(gateway, chat) == (requests + 1, errors, spent + cost, tokens + 1)

    await page.click("#message")
    await page.type("Once more")
    await page.click("#send")
    await page.until(f"{ANSWER} === 'Once more'")
    after = await used(gateway, chat)
    assert (after[0], after[3]) == (requests + 2, tokens + 1)
    assert page.faults == []


async def test_the_owner_switches_it_off(browser: Browser, gateway: Gateway, chat: Chat) -> None:
    """The kill switch stops an open page at its next message, which says why; switched on again it goes on with the token it has."""
    page = await browser.open(chat.url)

    async def say(text: str) -> None:
        await page.click("#message")
        await page.type(text)
        await page.press_enter()

    await say("one")
    await page.until(f"{ANSWER} === 'one'")
    app_id = (await ask(gateway, chat, SHOWN))["app"]["id"]
    await ask(gateway, chat, KILL, id=app_id, off=True)
    try:
        await say("two")
        assert "switched off by its owner" in await page.until("document.querySelector('#status').textContent")
    finally:
        await ask(gateway, chat, KILL, id=app_id, off=False)
    await say("three")
    await page.until(f"{ANSWER} === 'three'")
