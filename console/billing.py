"""The page at /billing: what is on sale, and the doors to Stripe, with nothing to build and nothing kept in the browser."""

import base64
import hashlib
from html import escape
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

STYLE: Final = """
:root { color-scheme: light dark } body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 44rem; padding: 2rem 1rem }
table { border-collapse: collapse; width: 100% } td, th { padding: .35rem .5rem .35rem 0; text-align: left }
input { font: inherit; padding: .35rem; width: 100%; box-sizing: border-box } button { font: inherit; padding: .35rem .9rem; cursor: pointer }
[role=status] { min-height: 1.5em } .row { display: flex; gap: .5rem } .row input { max-width: 8rem }
"""
SCRIPT: Final = """
const at = (id) => document.getElementById(id), said = at("said"), say = (text) => { said.textContent = text };
async function ask(path, body) {
  const key = at("key").value.trim();
  if (!key) { at("key").focus(); throw new Error("Paste an API key first."); }
  const sent = { headers: { authorization: "Bearer " + key } };
  if (body !== undefined) Object.assign(sent, { method: "POST", body: JSON.stringify(body) }, { headers: { ...sent.headers, "content-type": "application/json" } });
  const answer = await fetch(path, sent), told = await answer.json();
  if (!answer.ok) throw new Error(told.error?.message ?? told.message ?? told.error ?? "It was refused: " + answer.status);
  return told;
}
const go = (work) => async (event) => {
  event.preventDefault();
  say("One moment.");
  try { location.assign((await work(event.target)).url); } catch (error) { say(error.message); }
};
at("top-up").addEventListener("submit", go(() => ask("/tenant/billing/topup", { amount_usd: Number(at("amount").value) })));
at("portal").addEventListener("click", go(() => ask("/tenant/billing/portal", {})));
at("who").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const [billing, credit] = await Promise.all([ask("/v1/billing/trial-status"), ask("/v1/credits/balance")]);
    at("plan").textContent = billing.plan_name + " (" + billing.status + ")";
    at("credit").textContent = "$" + (credit.balanceMicrousd / 1e6).toFixed(2);
    say("");
  } catch (error) { say(error.message); }
});
fetch("/pricing").then((answer) => answer.json()).then(({ tiers }) => {
  for (const tier of tiers) {
    const row = at("tiers").insertRow();
    row.insertCell().textContent = tier.name;
    row.insertCell().textContent = tier.price_cents ? "$" + (tier.price_cents / 100).toFixed(2) + (tier.billing_cycle === "yearly" ? " a year" : " a month") : "free";
    row.insertCell().textContent = tier.limits.map((each) => (each.limit ?? "unlimited") + " " + each.resource.replaceAll("_", " ") + " / " + each.window).join(", ");
    const cell = row.insertCell();
    if (!tier.price_cents) continue;
    const button = document.createElement("button");
    button.textContent = "Subscribe";
    button.addEventListener("click", go(() => ask("/tenant/billing/checkout", { tier: tier.slug })));
    cell.append(button);
  }
});
"""
NOTE: Final = '<p role="note"><strong>Payments go to a simulator of Stripe here.</strong> Its pages say so too: nobody is charged.</p>'
BODY: Final = """
<main><h1>Billing</h1>{note}
<form id="who"><label for="key">An API key of your workspace that may see and spend its money; it stays on this page, and is kept nowhere</label>
<div class="row"><input id="key" type="password" autocomplete="off" spellcheck="false" style="max-width:none"><button>Show</button></div></form>
<p role="status" id="said"></p>
<table><tr><th scope="row">Plan</th><td id="plan">-</td></tr><tr><th scope="row">Credit</th><td id="credit">-</td></tr></table>
<h2>Buy credit</h2>
<form id="top-up" class="row"><input id="amount" type="number" min="5" max="1000" step="0.01" value="25" aria-label="US dollars"><button>Pay at Stripe</button></form>
<h2>Plans</h2><table><tbody id="tiers"></tbody></table>
<h2>Cards, invoices, subscriptions</h2><p><button id="portal">Open Stripe's portal</button></p></main>
"""


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


HEADERS: Final = {
    "content-security-policy": (
        f"default-src 'none'; script-src 'sha256-{_digest(SCRIPT)}'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'self';"
        " frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


class Billing:
    """The page; `simulated` when a simulator stands in for Stripe, which the page then says."""

    def __init__(self, title: str, *, simulated: bool) -> None:
        """Make it once: it is the same for everybody."""
        head = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width, initial-scale=1'>"
        body = BODY.replace("{note}", NOTE if simulated else "")
        self._page = f"{head}<title>Billing · {escape(title)}</title><style>{STYLE}</style><body>{body}<script>{SCRIPT}</script>"

    async def show(self, _: Request) -> Response:
        """Answer GET and HEAD."""
        return HTMLResponse(self._page, headers=HEADERS)
