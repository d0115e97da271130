"""The part of Stripe's API that is simulated: each path with the SDK's own type of its parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stripe import params as types
from stripe.params import billing_portal, checkout

from embedded.stripe import billing, payments
from embedded.stripe.account import Account, Json, Missing, Refused

Places = Mapping[str, str]
LARGEST_PAGE = 100


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path; `params` is the TypedDict of the SDK that describes what it takes."""

    method: str
    path: str
    params: Any
    answer: Callable[[Account, Places, Json], Json]


def _find(kind: str) -> Callable[[Account, Places, Json], Json]:
    return lambda account, places, params: account.get(kind, places["id"])


def _list(kind: str, *filters: str) -> Callable[[Account, Places, Json], Json]:
    def answer(account: Account, places: Places, params: Json) -> Json:
        wanted = {name: params[name] for name in filters if name in params}
        found = [each for each in account.all(kind, **wanted) if _within(each["created"], params.get("created"))]
        return _page(found, params, f"/v1/{kind}s")

    return answer


def _within(created: int, wanted: Any) -> bool:
    if wanted is None:
        return True
    if isinstance(wanted, int):
        return created == wanted
    tests = {"gt": created > wanted.get("gt", 0), "gte": created >= wanted.get("gte", 0), "lt": created < wanted.get("lt", 0), "lte": created <= wanted.get("lte", 0)}
    return all(tests[name] for name in wanted)


def _page(found: list[Json], params: Json, url: str) -> Json:
    size = params.get("limit", 10)
    if not 1 <= size <= LARGEST_PAGE:
        raise Refused("Invalid limit: must be between 1 and 100.")
    if "starting_after" in params:
        ids = [each["id"] for each in found]
        if params["starting_after"] not in ids:
            raise Missing("object", params["starting_after"], "starting_after")
        found = found[ids.index(params["starting_after"]) + 1 :]
    return {"object": "list", "url": url, "has_more": len(found) > size, "data": found[:size]}


def _events(account: Account, places: Places, params: Json) -> Json:
    kinds = params.get("types") or ([params["type"]] if "type" in params else None)
    found = [each for each in reversed(account.events) if _within(each["created"], params.get("created")) and (kinds is None or each["type"] in kinds)]
    return _page(found, params, "/v1/events")


def _prices(account: Account, places: Places, params: Json) -> Json:
    keys = params.get("lookup_keys")
    found = [each for each in account.all("price") if keys is None or each["lookup_key"] in keys]
    return _page([each for each in found if params.get("active", each["active"]) == each["active"]], params, "/v1/prices")


def _subscriptions(account: Account, places: Places, params: Json) -> Json:
    found = list(account.all("subscription", **{name: params[name] for name in ("customer",) if name in params}))
    status = params.get("status")
    if status != "all":
        found = [each for each in found if (each["status"] == status if status else each["status"] != "canceled")]
    return _page(found, params, "/v1/subscriptions")


def _invoice_payments(account: Account, places: Places, params: Json) -> Json:
    wanted = {name: params[name] for name in ("invoice", "status") if name in params}
    about = (params.get("payment") or {}).get("payment_intent")
    found = [each for each in account.all("invoice_payment", **wanted) if about is None or each["payment"]["payment_intent"] == about]
    return _page(found, params, "/v1/invoice_payments")


def _methods(account: Account, places: Places, params: Json) -> Json:
    wanted = {"type": params["type"]} if "type" in params else {}
    return _page(list(account.all("payment_method", customer=places["id"], **wanted)), params, f"/v1/customers/{places['id']}/payment_methods")


def _change(kind: str) -> Callable[[Account, Places, Json], Json]:
    def answer(account: Account, places: Places, params: Json) -> Json:
        found = account.get(kind, places["id"])
        for name, value in params.items():
            found[name] = {**found[name], **value} if isinstance(found.get(name), dict) and isinstance(value, dict) else value
        return found

    return answer


def _portal(account: Account, places: Places, params: Json) -> Json:
    customer = account.get("customer", params.get("customer", ""), "customer")
    made = account.make("bps", "billing_portal.session", customer=customer["id"], return_url=params.get("return_url"))
    made["url"] = f"{account.url}/portal/{made['id']}"
    return made


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("POST", "/v1/customers", types.CustomerCreateParams, lambda account, places, params: payments.create_customer(account, params)),
    Endpoint("GET", "/v1/customers/{id}", types.CustomerRetrieveParams, _find("customer")),
    Endpoint("POST", "/v1/customers/{id}", types.CustomerUpdateParams, _change("customer")),
    Endpoint("GET", "/v1/customers/{id}/payment_methods", types.CustomerPaymentMethodListParams, _methods),
    Endpoint("POST", "/v1/checkout/sessions", checkout.SessionCreateParams, lambda account, places, params: payments.create_session(account, params)),
    Endpoint("GET", "/v1/checkout/sessions", checkout.SessionListParams, _list("checkout.session", "customer", "status", "subscription")),
    Endpoint("GET", "/v1/checkout/sessions/{id}", checkout.SessionRetrieveParams, _find("checkout.session")),
    Endpoint("POST", "/v1/checkout/sessions/{id}/expire", checkout.SessionExpireParams, lambda account, places, params: payments.expire(account, places["id"])),
    Endpoint("POST", "/v1/payment_intents", types.PaymentIntentCreateParams, lambda account, places, params: payments.create_payment(account, params)),
    Endpoint("GET", "/v1/payment_intents", types.PaymentIntentListParams, _list("payment_intent", "customer")),
    Endpoint("GET", "/v1/payment_intents/{id}", types.PaymentIntentRetrieveParams, _find("payment_intent")),
    Endpoint("GET", "/v1/charges/{id}", types.ChargeRetrieveParams, _find("charge")),
    Endpoint("POST", "/v1/refunds", types.RefundCreateParams, lambda account, places, params: payments.create_refund(account, params)),
    Endpoint("GET", "/v1/refunds", types.RefundListParams, _list("refund", "payment_intent", "charge")),
    Endpoint("GET", "/v1/refunds/{id}", types.RefundRetrieveParams, _find("refund")),
    Endpoint("GET", "/v1/disputes", types.DisputeListParams, _list("dispute", "payment_intent", "charge")),
    Endpoint("GET", "/v1/disputes/{id}", types.DisputeRetrieveParams, _find("dispute")),
    Endpoint("GET", "/v1/balance_transactions", types.BalanceTransactionListParams, _list("balance_transaction", "type", "source")),
    Endpoint("GET", "/v1/events", types.EventListParams, _events),
    Endpoint("POST", "/v1/products", types.ProductCreateParams, lambda account, places, params: billing.create_product(account, params)),
    Endpoint("GET", "/v1/products/{id}", types.ProductRetrieveParams, _find("product")),
    Endpoint("POST", "/v1/products/{id}", types.ProductUpdateParams, _change("product")),
    Endpoint("POST", "/v1/prices", types.PriceCreateParams, lambda account, places, params: billing.create_price(account, params)),
    Endpoint("GET", "/v1/prices", types.PriceListParams, _prices),
    Endpoint("GET", "/v1/prices/{id}", types.PriceRetrieveParams, _find("price")),
    Endpoint("POST", "/v1/billing_portal/sessions", billing_portal.SessionCreateParams, _portal),
    Endpoint("GET", "/v1/subscriptions", types.SubscriptionListParams, _subscriptions),
    Endpoint("GET", "/v1/subscriptions/{id}", types.SubscriptionRetrieveParams, _find("subscription")),
    Endpoint("POST", "/v1/subscriptions/{id}", types.SubscriptionUpdateParams, lambda account, places, params: billing.update(account, places["id"], params)),
    Endpoint("DELETE", "/v1/subscriptions/{id}", types.SubscriptionCancelParams, lambda account, places, params: billing.cancel(account, places["id"])),
    Endpoint("POST", "/v1/subscription_schedules", types.SubscriptionScheduleCreateParams, lambda account, places, params: billing.create_schedule(account, params)),
    Endpoint("GET", "/v1/subscription_schedules/{id}", types.SubscriptionScheduleRetrieveParams, _find("subscription_schedule")),
    Endpoint(
        "POST",
        "/v1/subscription_schedules/{id}",
        types.SubscriptionScheduleUpdateParams,
        lambda account, places, params: billing.update_schedule(account, places["id"], params),
    ),
    Endpoint(
        "POST",
        "/v1/subscription_schedules/{id}/release",
        types.SubscriptionScheduleReleaseParams,
        lambda account, places, params: billing.release_schedule(account, places["id"]),
    ),
    Endpoint("GET", "/v1/invoices", types.InvoiceListParams, _list("invoice", "customer", "subscription", "status")),
    Endpoint("GET", "/v1/invoices/{id}", types.InvoiceRetrieveParams, _find("invoice")),
    Endpoint("GET", "/v1/invoice_payments", types.InvoicePaymentListParams, _invoice_payments),
)
