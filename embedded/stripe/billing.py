"""Subscriptions at the simulated Stripe: products, prices, periods on a movable clock, invoices, proration, schedules."""

import calendar
from datetime import UTC, datetime, timedelta

from embedded.stripe import payments
from embedded.stripe.account import Account, Json, Refused

RETRY_DAYS = (3, 5, 7)
"""When a failed renewal is tried again; after the last try the subscription ends."""
DAY = 86400
BANK_DAYS = 4
"""How long the money of a bank account is on its way when nobody decides otherwise."""


def create_product(account: Account, params: Json) -> Json:
    """Make a product; its id may be chosen."""
    if "id" in params and params["id"] in account.objects:
        raise Refused("Product already exists.", code="resource_already_exists")
    made = account.make("prod", "product", name=params["name"], active=True, description=params.get("description"), metadata=params.get("metadata") or {})
    if "id" in params:
        del account.objects[made["id"]]
        made["id"] = params["id"]
        account.objects[made["id"]] = made
    return made


def create_price(account: Account, params: Json) -> Json:
    """Make a price of a product; a lookup key moves to it when asked."""
    product = account.get("product", params.get("product", ""), "product")
    key = params.get("lookup_key")
    for other in account.all("price", lookup_key=key) if key else ():
        if not params.get("transfer_lookup_key"):
            raise Refused(f"A price already uses lookup key {key}.", code="resource_already_exists")
        other["lookup_key"] = None
    recurring = {"interval": params["recurring"]["interval"], "interval_count": params["recurring"].get("interval_count", 1)} if "recurring" in params else None
    return account.make(
        "price",
        "price",
        product=product["id"],
        unit_amount=params["unit_amount"],
        currency=params["currency"],
        lookup_key=key,
        active=True,
        recurring=recurring,
        type="recurring" if recurring else "one_time",
        nickname=params.get("nickname"),
        metadata=params.get("metadata") or {},
    )


def later(start: int, price: Json) -> int:
    """The end of a price's period that starts at an instant: months and years keep the day where they can."""
    every = price["recurring"]
    at = datetime.fromtimestamp(start, UTC)
    if every["interval"] in ("day", "week"):
        return int((at + timedelta(days=every["interval_count"] * (1 if every["interval"] == "day" else 7))).timestamp())
    months = at.month - 1 + every["interval_count"] * (1 if every["interval"] == "month" else 12)
    year, month = at.year + months // 12, months % 12 + 1
    return int(at.replace(year=year, month=month, day=min(at.day, calendar.monthrange(year, month)[1])).timestamp())


def pay_subscription(account: Account, session_id: str, last4: str = "4242") -> Json:
    """Do what a customer does on the page of a session in mode subscription; returns the subscription."""
    session = account.get("checkout.session", session_id)
    if session["status"] != "open":
        raise Refused("This session is over.")
    method = payments.attach_card(account, session["customer"], last4)
    data, now = session["_subscription"], account.now()
    trial_end = data.get("trial_end") or (now + data["trial_period_days"] * DAY if data.get("trial_period_days") else None)
    items = []
    for line in session["_lines"]:
        price = account.objects[line["price"]]
        items.append(
            {
                "id": account.make("si", "subscription_item")["id"],
                "object": "subscription_item",
                "price": price,
                "quantity": line["quantity"],
                "current_period_start": now,
                "current_period_end": trial_end or later(now, price),
            }
        )
    subscription = account.make(
        "sub",
        "subscription",
        customer=session["customer"],
        status="trialing" if trial_end else "incomplete",
        items={"object": "list", "data": items, "has_more": False},
        cancel_at_period_end=False,
        cancel_at=None,
        canceled_at=None,
        ended_at=None,
        trial_start=now if trial_end else None,
        trial_end=trial_end,
        start_date=now,
        metadata=data.get("metadata") or {},
        latest_invoice=None,
        schedule=None,
        default_payment_method=method["id"],
        currency="usd",
        _retries=0,
    )
    cents = 0 if trial_end else session["amount_total"]
    invoice = bill(account, subscription, cents, "subscription_create", session["_lines"][0]["name"])
    if invoice["status"] != "paid":
        del account.objects[subscription["id"]]
        raise Refused("Your card was declined.", status=402, kind="card_error", code="card_declined")
    if not trial_end:
        subscription["status"] = "active"
    session |= {"status": "complete", "payment_status": "paid" if cents else "no_payment_required", "subscription": subscription["id"], "invoice": invoice["id"]}
    account.emit("customer.subscription.created", subscription)
    account.emit("checkout.session.completed", session)
    return subscription


def bill(account: Account, subscription: Json, cents: int, reason: str, text: str | None) -> Json:
    """Make an invoice of a subscription and try to collect it."""
    number = sum(1 for _ in account.all("invoice", customer=subscription["customer"])) + 1
    invoice = account.make(
        "in",
        "invoice",
        customer=subscription["customer"],
        number=f"SIM-{number:04d}",
        status="open",
        billing_reason=reason,
        description=text,
        currency="usd",
        total=cents,
        subtotal=cents,
        amount_due=max(cents, 0),
        amount_paid=0,
        amount_remaining=max(cents, 0),
        metadata={},
        parent={
            "type": "subscription_details",
            "quote_details": None,
            "subscription_details": {"subscription": subscription["id"], "metadata": subscription["metadata"]},
        },
        lines={"object": "list", "data": [{"id": "il_1", "object": "line_item", "amount": cents, "description": text, "currency": "usd"}], "has_more": False},
    )
    invoice |= {"hosted_invoice_url": f"{account.url}/invoices/{invoice['id']}", "invoice_pdf": f"{account.url}/invoices/{invoice['id']}/pdf"}
    subscription["latest_invoice"] = invoice["id"]
    account.emit("invoice.finalized", invoice)
    collect(account, invoice, subscription)
    return invoice


def collect(account: Account, invoice: Json, subscription: Json) -> bool:
    """Try to collect an invoice from the subscription's payment method; tells whether it is paid."""
    cents = invoice["amount_due"]
    method = account.objects[subscription["default_payment_method"]]
    if cents:
        payment = payments.new_payment(account, cents, "usd", customer=subscription["customer"], metadata={})
        made = payments.charge(account, payment, method, status="pending")
        part = _payment_of(account, invoice, payment)
        last4 = method[method["type"]]["last4"]
        if last4 == "0002" or (last4 in ("0341", "3155") and invoice["billing_reason"] != "subscription_create"):
            code = "authentication_required" if last4 == "3155" else "card_declined"
            payments.decline(account, payment, made, code, "Your card was declined.")
            account.emit("invoice.payment_failed", invoice)
            return False
        payments.succeed(account, payment, made)
        part |= {"status": "paid", "amount_paid": cents, "status_transitions": {"paid_at": account.now(), "canceled_at": None}}
    invoice |= {"status": "paid", "amount_paid": cents, "amount_remaining": 0}
    account.emit("invoice.paid", invoice)
    return True


def _payment_of(account: Account, invoice: Json, payment: Json) -> Json:
    return account.make(
        "inpay",
        "invoice_payment",
        invoice=invoice["id"],
        amount_paid=None,
        amount_requested=payment["amount"],
        currency=payment["currency"],
        is_default=True,
        status="open",
        payment={"type": "payment_intent", "payment_intent": payment["id"]},
        status_transitions={"paid_at": None, "canceled_at": None},
    )


def update(account: Account, subscription_id: str, params: Json) -> Json:
    """Change a subscription: another price at once with proration, or its end with the period."""
    subscription = account.get("subscription", subscription_id)
    if subscription["status"] == "canceled":
        raise Refused("A canceled subscription can only update its cancellation_details and metadata.")
    if subscription["schedule"] and "items" in params:
        raise Refused("The subscription is managed by a subscription schedule; release it first.", code="subscription_managed_by_schedule")
    if "cancel_at" in params and "cancel_at_period_end" in params:
        raise Refused("You may only specify one of these parameters: cancel_at, cancel_at_period_end.")
    if subscription["schedule"] and ("cancel_at" in params or "cancel_at_period_end" in params):
        raise Refused("The subscription is managed by a subscription schedule, and updating any cancelation behavior directly is not allowed.")
    for item in params.get("items") or ():
        mine = next((each for each in subscription["items"]["data"] if each["id"] == item.get("id")), None)
        if mine is None:
            raise Refused(f"No such subscription item: '{item.get('id')}'", code="resource_missing")
        old, new = mine["price"], account.get("price", item["price"], "items[0][price]")
        mine["price"] = new
        behavior = params.get("proration_behavior", "create_prorations")
        if subscription["status"] != "trialing" and behavior != "none":
            start, end = mine["current_period_start"], mine["current_period_end"]
            left = max(end - account.now(), 0)
            difference = (new["unit_amount"] - old["unit_amount"]) * left // (end - start)
            invoice = bill(account, subscription, difference, "subscription_update", f"Remaining time on {account.objects[new['product']]['name']}")
            if invoice["status"] != "paid":
                if params.get("payment_behavior") == "error_if_incomplete":
                    mine["price"] = old
                    invoice["status"] = "void"
                    raise Refused("Your card was declined.", status=402, kind="card_error", code="card_declined")
                subscription["status"] = "past_due"
    if "cancel_at_period_end" in params:
        subscription["cancel_at_period_end"] = params["cancel_at_period_end"]
        subscription["cancel_at"] = subscription["items"]["data"][0]["current_period_end"] if params["cancel_at_period_end"] else None
        subscription["canceled_at"] = account.now() if params["cancel_at_period_end"] else None
    if "cancel_at" in params:
        subscription["cancel_at"] = params["cancel_at"] or None
        subscription |= {"cancel_at_period_end": False, "canceled_at": account.now() if params["cancel_at"] else None}
    subscription["metadata"] |= params.get("metadata") or {}
    account.emit("customer.subscription.updated", subscription)
    return subscription


def cancel(account: Account, subscription_id: str, status: str = "canceled") -> Json:
    """End a subscription now."""
    subscription = account.get("subscription", subscription_id)
    subscription |= {"status": status, "ended_at": account.now(), "canceled_at": subscription["canceled_at"] or account.now()}
    account.emit("customer.subscription.deleted", subscription)
    return subscription


def create_schedule(account: Account, params: Json) -> Json:
    """Let a schedule lead a subscription."""
    subscription = account.get("subscription", params.get("from_subscription", ""), "from_subscription")
    if subscription["schedule"]:
        raise Refused("You cannot migrate a subscription that is already attached to a schedule.", code="resource_already_exists")
    phases = [
        {"items": [{"price": item["price"]["id"], "quantity": item["quantity"]}], "start_date": item["current_period_start"], "end_date": item["current_period_end"]}
        for item in subscription["items"]["data"][:1]
    ]
    made = account.make(
        "sub_sched", "subscription_schedule", subscription=subscription["id"], status="active", end_behavior="release", phases=phases, current_phase=phases[0]
    )
    subscription["schedule"] = made["id"]
    return made


def update_schedule(account: Account, schedule_id: str, params: Json) -> Json:
    """Set the phases of a schedule."""
    schedule = account.get("subscription_schedule", schedule_id)
    if schedule["status"] != "active":
        raise Refused("The schedule is over.")
    subscription = account.objects[schedule["subscription"]]
    if "phases" in params:
        for phase in params["phases"]:
            for item in phase["items"]:
                account.get("price", item["price"], "phases[items][price]")
        schedule["phases"] = params["phases"]
        if subscription["status"] == "trialing" and not params["phases"][0].get("trial_end"):  # a phase is what is said of it
            subscription["trial_end"] = subscription["items"]["data"][0]["current_period_end"] = account.now()
            tick(account)
    schedule["end_behavior"] = params.get("end_behavior", schedule["end_behavior"])
    account.emit("customer.subscription.updated", subscription)
    return schedule


def release_schedule(account: Account, schedule_id: str) -> Json:
    """Let a subscription go on without its schedule."""
    schedule = account.get("subscription_schedule", schedule_id)
    schedule["status"] = "released"
    subscription = account.objects[schedule["subscription"]]
    subscription["schedule"] = None
    account.emit("customer.subscription.updated", subscription)
    return schedule


def tick(account: Account) -> None:
    """Do everything that is due by the account's clock: expiries, money of banks, ends of trials, renewals, retries, cancellations."""
    for session in list(account.all("checkout.session", status="open")):
        if session["expires_at"] <= account.now():
            payments.expire(account, session["id"])
    for payment in list(account.all("payment_intent", status="processing")):
        if payment["created"] + BANK_DAYS * DAY <= account.now():
            payments.finish(account, payment["id"], succeeded=True)
    while True:
        due = min(
            (each for each in account.all("subscription") if each["status"] in ("active", "trialing", "past_due") and _next(account, each) <= account.now()),
            key=lambda each: _next(account, each),
            default=None,
        )
        if due is None:
            return
        _step(account, due)


def _next(account: Account, subscription: Json) -> int:
    if subscription["status"] == "past_due":
        opened = account.objects[subscription["latest_invoice"]]["created"]
        return int(opened + RETRY_DAYS[min(subscription["_retries"], len(RETRY_DAYS) - 1)] * DAY)
    return int(subscription["items"]["data"][0]["current_period_end"])


def _step(account: Account, subscription: Json) -> None:
    at = _next(account, subscription)
    offset, account.offset_seconds = account.offset_seconds, account.offset_seconds + at - account.now()
    try:
        if subscription["status"] == "past_due":
            if collect(account, account.objects[subscription["latest_invoice"]], subscription):
                subscription |= {"status": "active", "_retries": 0}
                account.emit("customer.subscription.updated", subscription)
            elif subscription["_retries"] + 1 >= len(RETRY_DAYS):
                cancel(account, subscription["id"])
            else:
                subscription["_retries"] += 1
        elif subscription["cancel_at"] is not None and subscription["cancel_at"] <= at:
            cancel(account, subscription["id"])
        else:
            _renew(account, subscription, at)
    finally:
        account.offset_seconds = offset


def _renew(account: Account, subscription: Json, at: int) -> None:
    schedule = account.objects.get(subscription["schedule"] or "")
    if schedule is not None:
        following = next((phase for phase in schedule["phases"] if phase.get("start_date", 0) >= at or phase is schedule["phases"][-1]), None)
        if following is not None:
            subscription["items"]["data"][0]["price"] = account.objects[following["items"][0]["price"]]
        schedule["status"], subscription["schedule"] = "released", None
    for item in subscription["items"]["data"]:
        item |= {"current_period_start": at, "current_period_end": later(at, item["price"])}
    cents = sum(item["price"]["unit_amount"] * item["quantity"] for item in subscription["items"]["data"])
    subscription["status"] = "active"
    invoice = bill(account, subscription, cents, "subscription_cycle", account.objects[subscription["items"]["data"][0]["price"]["product"]]["name"])
    if invoice["status"] != "paid":
        subscription |= {"status": "past_due", "_retries": 0}
    account.emit("customer.subscription.updated", subscription)
