"""Money at the simulated Stripe: customers, checkout, payments, refunds, disputes, and the balance transactions of them all."""

import secrets
from typing import Any

from embedded.stripe.account import Account, Json, Refused

SESSION_SECONDS = 24 * 3600
CARDS = {
    "4242": ("visa", "pays, now and later"),
    "0341": ("visa", "pays now, is declined later"),
    "3155": ("visa", "pays now, asks its owner later"),
    "0002": ("visa", "is declined"),
    "6789": ("us_bank_account", "pays in a few days"),
}
"""Last digits of the payment methods that a customer may choose, as Stripe's own test cards have them."""
DISPUTE_FEE_CENTS = 1500
LEAST_CENTS = 50


def fee_of(cents: int) -> int:
    """What Stripe takes of a card payment: 2.9 % and 30 cents."""
    return (cents * 29 + 500) // 1000 + 30


def balance_transaction(account: Account, kind: str, source: str, cents: int, fee: int, currency: str) -> Json:
    """Note money that came to, or left, the account's balance."""
    return account.make(
        "txn",
        "balance_transaction",
        type=kind,
        reporting_category=kind,
        source=source,
        amount=cents,
        fee=fee,
        net=cents - fee,
        currency=currency,
        status="available",
        available_on=account.now(),
        exchange_rate=None,
        description=None,
        fee_details=[],
    )


def create_customer(account: Account, params: Json) -> Json:
    """Make a customer."""
    customer = account.make(
        "cus",
        "customer",
        email=params.get("email"),
        name=params.get("name"),
        description=params.get("description"),
        metadata=params.get("metadata") or {},
        invoice_settings={"default_payment_method": None},
    )
    account.emit("customer.created", customer)
    return customer


def create_session(account: Account, params: Json) -> Json:
    """Begin a Checkout session in mode payment or subscription."""
    customer = account.get("customer", params["customer"], "customer") if "customer" in params else None
    lines = []
    for line in params.get("line_items") or ():
        if "price" in line:
            price = account.get("price", line["price"], "line_items[0][price]")
            asked = {"unit_amount": price["unit_amount"], "currency": price["currency"], "price": price["id"], "name": account.objects[price["product"]]["name"]}
            lines.append({**asked, "quantity": line.get("quantity", 1)})
        else:
            data = line["price_data"]
            name = (data.get("product_data") or {}).get("name")
            lines.append({"unit_amount": data["unit_amount"], "currency": data["currency"], "quantity": line.get("quantity", 1), "price": None, "name": name})
    mode = params.get("mode")
    if not lines or mode not in ("payment", "subscription"):
        raise Refused("You must provide line_items, and a mode of payment or subscription.")
    if (mode == "subscription") != all(line["price"] and account.objects[line["price"]].get("recurring") for line in lines):
        raise Refused("You must provide one recurring price in `subscription` mode, and none in `payment` mode.")
    total = sum(line["unit_amount"] * line["quantity"] for line in lines)
    if mode == "payment" and total < LEAST_CENTS:
        raise Refused("The Checkout Session's total amount must convert to at least 50 cents.", code="amount_too_small")
    if "success_url" not in params:
        raise Refused("Missing required param: success_url.", code="parameter_missing")
    session = account.make(
        "cs_test",
        "checkout.session",
        mode=mode,
        status="open",
        payment_status="unpaid",
        amount_subtotal=total,
        amount_total=total,
        currency=lines[0]["currency"],
        client_reference_id=params.get("client_reference_id"),
        customer=customer["id"] if customer else None,
        metadata=params.get("metadata") or {},
        success_url=params["success_url"],
        cancel_url=params.get("cancel_url"),
        expires_at=params.get("expires_at") or account.now() + SESSION_SECONDS,
        payment_intent=None,
        subscription=None,
        invoice=None,
        _lines=lines,
        _payment=params.get("payment_intent_data") or {},
        _subscription=params.get("subscription_data") or {},
        _saves=_saves(params),
    )
    session["url"] = f"{account.url}/checkout/{session['id']}"
    return session


def _saves(params: Json) -> bool:
    card = (params.get("payment_method_options") or {}).get("card") or {}
    return bool(card.get("setup_future_usage") or (params.get("payment_intent_data") or {}).get("setup_future_usage"))


def attach_card(account: Account, customer: str | None, last4: str) -> Json:
    """Make a payment method, of the customer's if there is one."""
    brand, _ = CARDS[last4]
    kind = "card" if brand == "visa" else brand
    details = {"brand": brand, "last4": last4, "exp_month": 12, "exp_year": 2040} if kind == "card" else {"bank_name": "STRIPE TEST BANK", "last4": last4}
    return account.make("pm", "payment_method", type=kind, customer=customer, **{kind: details})


def new_payment(account: Account, amount: int, currency: str, **fields: Any) -> Json:
    """Make a PaymentIntent that waits for a payment method."""
    made = {"amount": amount, "amount_received": 0, "currency": currency, "status": "requires_payment_method", "customer": None, "metadata": {}, "latest_charge": None}
    payment = account.make("pi", "payment_intent", **(made | {"last_payment_error": None, "payment_method": None} | fields))
    account.emit("payment_intent.created", payment)
    return payment


def charge(account: Account, payment: Json, method: Json, *, status: str) -> Json:
    """Make a charge of a PaymentIntent: succeeded, pending or failed."""
    made = account.make(
        "ch",
        "charge",
        amount=payment["amount"],
        amount_captured=payment["amount"] if status == "succeeded" else 0,
        amount_refunded=0,
        refunded=False,
        disputed=False,
        captured=status == "succeeded",
        paid=status == "succeeded",
        status=status,
        currency=payment["currency"],
        customer=payment["customer"],
        payment_intent=payment["id"],
        payment_method=method["id"],
        metadata=payment["metadata"],
        balance_transaction=None,
        failure_code=None,
        failure_message=None,
        payment_method_details={"type": method["type"], method["type"]: method[method["type"]]},
    )
    made["receipt_url"] = f"{account.url}/receipts/{made['id']}" if status == "succeeded" else None
    payment["latest_charge"], payment["payment_method"] = made["id"], method["id"]
    return made


def succeed(account: Account, payment: Json, made: Json) -> None:
    """Let a charge bring its money in."""
    cents = payment["amount"]
    arrived = balance_transaction(account, "charge", made["id"], cents, fee_of(cents), payment["currency"])
    made |= {"status": "succeeded", "paid": True, "captured": True, "amount_captured": cents, "balance_transaction": arrived["id"]}
    made["receipt_url"] = f"{account.url}/receipts/{made['id']}"
    payment |= {"status": "succeeded", "amount_received": cents, "last_payment_error": None}
    account.emit("charge.succeeded", made)
    account.emit("payment_intent.succeeded", payment)


def decline(account: Account, payment: Json, made: Json, code: str, message: str) -> None:
    """Let a charge fail; the PaymentIntent waits for another method, or for its owner."""
    made |= {"status": "failed", "paid": False, "captured": False, "failure_code": code, "failure_message": message}
    waits = "requires_action" if code == "authentication_required" else "requires_payment_method"
    payment |= {"status": waits, "last_payment_error": {"code": code, "message": message, "type": "card_error"}}
    account.emit("charge.failed", made)
    account.emit("payment_intent.payment_failed", payment)


def create_payment(account: Account, params: Json) -> Json:
    """Charge a saved method without its owner: what auto top-up does. Raises Refused as Stripe does when the card says no."""
    if not (params.get("confirm") and params.get("off_session") and params.get("payment_method")):
        raise Refused("The simulator knows PaymentIntents that are confirmed off session, with a payment method.")
    if params["amount"] < LEAST_CENTS:
        raise Refused("Amount must be at least 50 cents.", code="amount_too_small")
    method = account.get("payment_method", params["payment_method"], "payment_method")
    if method["customer"] != params.get("customer"):
        raise Refused("The payment method does not belong to the customer.", code="payment_method_customer_mismatch")
    payment = new_payment(account, params["amount"], params["currency"], customer=params["customer"], metadata=params.get("metadata") or {})
    last4 = method[method["type"]]["last4"]
    if last4 == "6789":
        charge(account, payment, method, status="pending")
        payment["status"] = "processing"
        account.emit("payment_intent.processing", payment)
        return payment
    made = charge(account, payment, method, status="pending")
    if last4 in ("0341", "0002"):
        decline(account, payment, made, "card_declined", "Your card was declined.")
        raise Refused("Your card was declined.", status=402, kind="card_error", code="card_declined", decline="generic_decline", payment=payment)
    if last4 == "3155":
        decline(account, payment, made, "authentication_required", "Your card was declined. This transaction requires authentication.")
        code = "authentication_required"
        raise Refused("This transaction requires authentication.", status=402, kind="card_error", code=code, decline=code, payment=payment)
    succeed(account, payment, made)
    return payment


def pay(account: Account, session_id: str, last4: str = "4242", *, currency: str | None = None, cents: int | None = None) -> Json:
    """Do what a customer does on the page of a session in mode payment: pay with a method; returns the PaymentIntent.

    `currency` and `cents` let the payment arrive as something else than what was asked for.
    """
    session = account.get("checkout.session", session_id)
    if session["status"] != "open":
        raise Refused("This session is over.")
    method = attach_card(account, session["customer"] if session["_saves"] else None, last4)
    if session["payment_intent"]:
        payment = account.objects[session["payment_intent"]]
    else:
        payment = new_payment(
            account,
            cents or session["amount_total"],
            currency or session["currency"],
            customer=session["customer"],
            metadata=session["_payment"].get("metadata") or {},
            description=session["_payment"].get("description"),
        )
        session["payment_intent"] = payment["id"]
    made = charge(account, payment, method, status="pending")
    if last4 == "0002":
        decline(account, payment, made, "card_declined", "Your card was declined.")
        return payment
    session["status"] = "complete"
    if last4 == "6789":
        payment["status"] = "processing"
        account.emit("checkout.session.completed", session)
        return payment
    succeed(account, payment, made)
    session["payment_status"] = "paid"
    account.emit("checkout.session.completed", session)
    return payment


def finish(account: Account, payment_id: str, *, succeeded: bool) -> None:
    """End a payment that took days: its money arrives, or never does."""
    payment = account.get("payment_intent", payment_id)
    made = account.objects[payment["latest_charge"]]
    session = next(account.all("checkout.session", payment_intent=payment_id), None)
    if succeeded:
        succeed(account, payment, made)
    else:
        decline(account, payment, made, "debit_not_authorized", "The customer's bank refused the debit.")
    if session is not None:
        session["payment_status"] = "paid" if succeeded else "unpaid"
        account.emit(f"checkout.session.async_payment_{'succeeded' if succeeded else 'failed'}", session)


def expire(account: Account, session_id: str) -> Json:
    """End a session that nobody paid."""
    session = account.get("checkout.session", session_id)
    if session["status"] != "open":
        raise Refused('Only Checkout Sessions with a status in ["open"] can be expired.')
    session["status"], session["url"] = "expired", None
    account.emit("checkout.session.expired", session)
    return session


def create_refund(account: Account, params: Json) -> Json:
    """Give money of a payment back; it succeeds at once."""
    payment = account.get("payment_intent", params.get("payment_intent", ""), "payment_intent")
    made = account.objects.get(payment["latest_charge"] or "")
    if made is None or payment["status"] != "succeeded":
        raise Refused("This PaymentIntent does not have a successful charge to refund.", code="charge_not_refundable")
    left = made["amount"] - made["amount_refunded"]
    cents = params.get("amount", left)
    if left == 0:
        raise Refused(f"Charge {made['id']} has already been refunded.", code="charge_already_refunded")
    if not 0 < cents <= left:
        raise Refused(f"Refund amount ({cents}) is greater than unrefunded amount on charge ({left}).", code="amount_too_large")
    if made["disputed"]:
        raise Refused(f"Charge {made['id']} has been charged back; cannot issue a refund.", code="charge_disputed")
    refund = account.make(
        "re",
        "refund",
        amount=cents,
        currency=payment["currency"],
        status="succeeded",
        payment_intent=payment["id"],
        charge=made["id"],
        reason=params.get("reason"),
        metadata=params.get("metadata") or {},
        failure_balance_transaction=None,
        failure_reason=None,
    )
    refund["balance_transaction"] = balance_transaction(account, "refund", refund["id"], -cents, 0, payment["currency"])["id"]
    made["amount_refunded"] += cents
    made["refunded"] = made["amount_refunded"] == made["amount"]
    account.emit("refund.created", refund)
    account.emit("charge.refunded", made)
    return refund


def fail_refund(account: Account, refund_id: str) -> None:
    """Let a refund come back: the customer's bank would not have it."""
    refund = account.get("refund", refund_id)
    made = account.objects[refund["charge"]]
    back = balance_transaction(account, "refund_failure", refund["id"], refund["amount"], 0, refund["currency"])
    refund |= {"status": "failed", "failure_reason": "lost_or_stolen_card", "failure_balance_transaction": back["id"]}
    made["amount_refunded"] -= refund["amount"]
    made["refunded"] = False
    account.emit("refund.failed", refund)
    account.emit("refund.updated", refund)


def open_dispute(account: Account, payment_id: str, *, cents: int | None = None, reason: str = "fraudulent", inquiry: bool = False) -> Json:
    """Let the customer's bank contest a payment; unless it only asks, it takes the money."""
    payment = account.get("payment_intent", payment_id)
    made = account.objects[payment["latest_charge"]]
    dispute = account.make(
        "du",
        "dispute",
        amount=cents or made["amount"],
        currency=payment["currency"],
        status="warning_needs_response" if inquiry else "needs_response",
        reason=reason,
        charge=made["id"],
        payment_intent=payment_id,
        balance_transactions=[],
        metadata={},
        is_charge_refundable=inquiry,
    )
    account.emit("charge.dispute.created", dispute)
    if not inquiry:
        made["disputed"] = True
        taken = balance_transaction(account, "adjustment", dispute["id"], -dispute["amount"], DISPUTE_FEE_CENTS, payment["currency"])
        taken["reporting_category"] = "dispute"
        dispute["balance_transactions"].append(dict(taken))
        account.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def close_dispute(account: Account, dispute_id: str, *, won: bool) -> None:
    """Let the bank decide; a won dispute gives the money back."""
    dispute = account.get("dispute", dispute_id)
    asked = dispute["status"].startswith("warning_")
    dispute["status"] = "warning_closed" if asked else "won" if won else "lost"
    if won and not asked:
        back = balance_transaction(account, "adjustment", dispute["id"], dispute["amount"], 0, dispute["currency"])
        back["reporting_category"] = "dispute_reversal"
        dispute["balance_transactions"].append(dict(back))
        account.emit("charge.dispute.funds_reinstated", dispute)
    account.emit("charge.dispute.closed", dispute)


def pay_out(account: Account, cents: int) -> Json:
    """Send money of the balance to the bank of the account's owner."""
    made = account.make("po", "payout", amount=cents, currency="usd", status="paid", arrival_date=account.now(), automatic=True, method="standard", type="bank_account")
    made["balance_transaction"] = balance_transaction(account, "payout", made["id"], -cents, 0, "usd")["id"]
    account.emit("payout.paid", made)
    return made


def charge_account(account: Account, cents: int) -> Json:
    """Take what the account's owner owes Stripe itself: for a product of Stripe's, which no payment has to do with."""
    taken = balance_transaction(account, "stripe_fee", "", -cents, 0, "usd")
    taken |= {"source": None, "reporting_category": "fee"}
    return taken


def secret() -> str:
    """A webhook's signing secret."""
    return f"whsec_{secrets.token_hex(16)}"
