"""The pages that a customer is sent to: each says plainly that it is a simulator, and that nothing is paid."""

from datetime import UTC, datetime
from html import escape
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from embedded.stripe import billing, payments
from embedded.stripe.account import Account, Json, Missing, Refused

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 34rem; margin: 3rem auto; padding: 0 1rem; color: #1a1f36; background: #f6f9fc }
.note { background: #fff4d6; border: 1px solid #d9a400; border-radius: 6px; padding: .75rem 1rem; margin-bottom: 2rem }
h1 { font-size: 1.4rem } table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .3rem .5rem .3rem 0 }
button { font: inherit; padding: .5rem 1rem; margin: .25rem .5rem .25rem 0; border-radius: 6px; border: 1px solid #635bff; background: #fff; cursor: pointer }
button.first { background: #635bff; color: #fff } select { font: inherit; padding: .4rem }
"""
NOTE = "<p class=note><strong>This is a simulator of Stripe.</strong> No card is asked for, nobody is charged, and no money moves.</p>"
MOVES = {"month": (31, "A month later"), "week": (7, "A week later"), "day": (1, "A day later")}
"""How many days the clock can be moved by, and what the button says."""
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}


def _page(title: str, body: str, status: int = 200) -> HTMLResponse:
    head = f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{escape(title)} (simulator)</title>"
    return HTMLResponse(f"{head}<style>{STYLE}</style><body>{NOTE}<h1>{escape(title)}</h1>{body}", status, headers=HEADERS)


def _usd(cents: int) -> str:
    return f"{'-' if cents < 0 else ''}${abs(cents) // 100}.{abs(cents) % 100:02d}"


def _day(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def _buttons(*actions: tuple[str, str]) -> str:
    first = " class=first"
    return "".join(f"<button{first if number == 0 else ''} name=action value={action}>{text}</button>" for number, (action, text) in enumerate(actions))


def routes(account: Account) -> list[BaseRoute]:
    """Return the pages over an account."""

    def session_page(session: Json, said: str = "") -> Response:
        if session["status"] != "open":
            payment = account.objects.get(session["payment_intent"] or "")
            waits = payment is not None and payment["status"] == "processing"
            more = f" The payment is under way: <a href='../receipts/{payment['latest_charge']}'>decide how it ends</a>." if payment is not None and waits else ""
            back = f"<p><a href='{escape(session['success_url'])}'>Go back</a>"
            return _page("This page is over", f"<p>The session is {escape(session['status'])}.{more}{back}")
        lines = "".join(f"<tr><td>{escape(str(line['name']))}<td>{_usd(line['unit_amount'] * line['quantity'])}" for line in session["_lines"])
        cards = "".join(f"<option value={last4}>{escape(brand)} ending in {last4}: {escape(text)}" for last4, (brand, text) in payments.CARDS.items())
        form = (
            f"<form method=post><p><label>Pay with <select name=card>{cards}</select></label>"
            f"<p>{_buttons(('pay', 'Pay'), ('fail', 'Let the payment fail'), ('cancel', 'Cancel and go back'), ('abandon', 'Abandon: let the page expire'))}</form>"
        )
        return _page("Checkout", f"{said}<table>{lines}<tr><th>Total<th>{_usd(session['amount_total'])}</table>{form}")

    async def checkout(request: Request) -> Response:
        try:
            session = account.get("checkout.session", request.path_params["id"])
        except Missing:
            return _page("There is no such session", "<p>It may be another simulator's.", 404)
        if request.method == "GET":
            return session_page(session)
        given = {name: values[0] for name, values in parse_qs((await request.body()).decode(errors="replace")).items()}
        action, card = given.get("action"), given.get("card", "4242")
        try:
            if action == "cancel":
                return RedirectResponse(session["cancel_url"] or session["success_url"], 303)
            if action == "abandon":
                payments.expire(account, session["id"])
                return session_page(session)
            card = "0002" if action == "fail" else card if card in payments.CARDS else "4242"
            if session["mode"] == "subscription":
                billing.pay_subscription(account, session["id"], card)
            else:
                payments.pay(account, session["id"], card)
        except Refused as refused:
            return session_page(session, f"<p><strong>{escape(str(refused))}</strong>")
        finally:
            account.save()
        if session["status"] == "open":
            return session_page(session, "<p><strong>The payment failed: the card was declined. Try another one.</strong>")
        return RedirectResponse(session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"]), 303)

    async def receipt(request: Request) -> Response:
        charge = account.objects.get(request.path_params["id"])
        if charge is None or charge["object"] != "charge":
            return _page("There is no such receipt", "", 404)
        returned = f"<tr><td>Given back<td>{_usd(charge['amount_refunded'])}" if charge["amount_refunded"] else ""
        form = ""
        if charge["status"] == "succeeded" and not charge["disputed"] and charge["amount_refunded"] < charge["amount"]:
            actions = _buttons(("refund", "Give all of it back, as in Stripe's dashboard"), ("dispute", "Contest it at the bank"))
            form = f"<form method=post><p>{actions}</form>"
        elif charge["disputed"]:
            form = f"<form method=post><p>{_buttons(('won', 'Decide for the merchant'), ('lost', 'Decide for the customer'))}</form>"
        elif charge["status"] == "pending":
            form = f"<form method=post><p>{_buttons(('arrive', 'Let the money arrive'), ('bounce', 'Let it never arrive'))}</form>"
        if request.method == "POST":
            action = parse_qs((await request.body()).decode(errors="replace")).get("action", [""])[0]
            _act(account, charge, action)
            account.save()
            return RedirectResponse(str(request.url.path).rsplit("/", 1)[-1], 303)
        return _page("Receipt", f"<table><tr><td>Paid<td>{_usd(charge['amount'])}{returned}<tr><td>On<td>{_day(charge['created'])}</table>{form}")

    async def invoice(request: Request) -> Response:
        found = account.objects.get(request.path_params["id"])
        if found is None or found["object"] != "invoice":
            return _page("There is no such invoice", "", 404)
        rows = f"<tr><td>{escape(str(found['description']))}<td>{_usd(found['total'])}<tr><td>Status<td>{found['status']}"
        return _page(f"Invoice {found['number']}", f"<table>{rows}</table>")

    async def portal(request: Request) -> Response:
        session = account.objects.get(request.path_params["id"])
        if session is None or session["object"] != "billing_portal.session":
            return _page("There is no such portal session", "", 404)
        if request.method == "POST":
            given = {name: values[0] for name, values in parse_qs((await request.body()).decode(errors="replace")).items()}
            found = account.objects.get(given.get("subscription", ""))
            if found is not None and found.get("customer") == session["customer"] and found["status"] != "canceled":
                if found["schedule"]:
                    billing.release_schedule(account, found["schedule"])
                ends = found["items"]["data"][0]["current_period_end"]
                billing.update(account, found["id"], {"cancel_at": ends if given.get("action") == "cancel" else ""})  # an instant alone, as Stripe's own portal
                account.save()
            return RedirectResponse(session["id"], 303)
        rows = []
        for found in account.all("subscription", customer=session["customer"]):
            item = found["items"]["data"][0]
            button = _buttons(("keep", "Go on with it")) if found["cancel_at"] else _buttons(("cancel", "End it with the period"))
            form = "" if found["status"] == "canceled" else f"<form method=post><input type=hidden name=subscription value={found['id']}>{button}</form>"
            product = account.objects[item["price"]["product"]]["name"]
            rows.append(f"<tr><td>{escape(product)}<td>{escape(found['status'])} until {_day(item['current_period_end'])}<td>{form}")
        invoices = "".join(
            f"<tr><td><a href='../invoices/{each['id']}'>{each['number']}</a><td>{_day(each['created'])}<td>{_usd(each['total'])}<td>{each['status']}"
            for each in account.all("invoice", customer=session["customer"])
        )
        back = f"<p><a href='{escape(session['return_url'])}'>Go back</a>" if session["return_url"] else ""
        return _page("Your subscriptions", f"<table>{''.join(rows)}</table><h1>Invoices</h1><table>{invoices}</table><p><a href='../clock'>Let time pass</a>{back}")

    async def clock(request: Request) -> Response:
        if request.method == "POST":
            action = parse_qs((await request.body()).decode(errors="replace")).get("action", [""])[0]
            account.offset_seconds += MOVES.get(action, (0, ""))[0] * billing.DAY
            billing.tick(account)
            account.save()
            return RedirectResponse("clock", 303)
        moved = account.offset_seconds // billing.DAY
        said = f"It is {_day(account.now())} at this Stripe, {moved} days ahead of the world." if moved else f"It is {_day(account.now())}, here as everywhere."
        told = "<p>What is due by then happens at once: renewals, ends of trials, retries of cards, money from bank accounts, expiries. It cannot go back."
        return _page("Stripe's clock", f"<p>{said}{told}<form method=post><p>{_buttons(*((name, text) for name, (_, text) in MOVES.items()))}</form>")

    return [
        Route("/clock", clock, methods=["GET", "POST"]),
        Route("/checkout/{id}", checkout, methods=["GET", "POST"]),
        Route("/receipts/{id}", receipt, methods=["GET", "POST"]),
        Route("/invoices/{id}", invoice),
        Route("/invoices/{id}/pdf", invoice),
        Route("/portal/{id}", portal, methods=["GET", "POST"]),
    ]


def _act(account: Account, charge: Json, action: str) -> None:
    """Do what a button of a receipt says, where it is still possible."""
    payment = charge["payment_intent"]
    open_ = next((each for each in account.all("dispute", charge=charge["id"]) if each["status"] == "needs_response"), None)
    try:
        if action == "refund":
            payments.create_refund(account, {"payment_intent": payment})
        elif action == "dispute" and not charge["disputed"]:
            payments.open_dispute(account, payment)
        elif action in ("won", "lost") and open_ is not None:
            payments.close_dispute(account, open_["id"], won=action == "won")
        elif action in ("arrive", "bounce") and charge["status"] == "pending":
            payments.finish(account, payment, succeeded=action == "arrive")
    except Refused:
        return
