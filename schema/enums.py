"""The enums of the contract: those of the tables with their descriptions, and those that only a question needs."""

import enum
from typing import TypeVar

import strawberry
from strawberry.types.enum import StrawberryEnumDefinition

from domain.apps import registry
from domain.money import grants
from domain.serving import receipts
from domain.usage import activity, metrics, records, windows
from models import enums

Kind = TypeVar("Kind", bound=type[enum.Enum])


def _describe(kind: Kind, description: str, values: dict[str, str], name: str | None = None) -> Kind:
    described = strawberry.enum(kind, name=name, description=description)
    definition = getattr(described, "__strawberry_definition__", None)
    assert isinstance(definition, StrawberryEnumDefinition)
    for value in definition.values:
        value.description = values[value.name]
    return described


@strawberry.enum(description="Which way to sort.")
class SortDirection(enum.Enum):
    """SortDirection, as the contract has it."""

    ASC = strawberry.enum_value("asc", description="Smallest or oldest first.")
    DESC = strawberry.enum_value("desc", description="Largest or newest first.")


@strawberry.enum(description="What a transfer books.")
class TransferKind(enum.Enum):
    """TransferKind, as the contract has it; a subscription that was paid for is money that came in, and told as such."""

    TOP_UP = strawberry.enum_value("top_up", description="Credit bought.")
    GRANT = strawberry.enum_value("grant", description="Promotional credit given or taken back.")
    CHARGE = strawberry.enum_value("charge", description="A metered call.")
    LATE = strawberry.enum_value("late", description="The difference of a call that was settled after its hold had been swept.")
    CORRECTION = strawberry.enum_value("correction", description="A charge corrected, voided or rated again.")
    REFUND = strawberry.enum_value("refund", description="A payment given back to the customer.")
    REFUND_FAILURE = strawberry.enum_value("refund_failure", description="A refund that failed, booked back.")
    DISPUTE = strawberry.enum_value("dispute", description="A payment taken back by the bank.")
    DISPUTE_REVERSAL = strawberry.enum_value("dispute_reversal", description="A disputed payment returned by the bank.")
    WALLET = strawberry.enum_value("wallet", description="Credit moved into or out of an end user's wallet.")
    ADJUSTMENT = strawberry.enum_value("adjustment", description="A correction by an operator, or one that a reconciliation led to.")
    EXPIRY = strawberry.enum_value("expiry", description="Promotional credit that ran out of time: breakage.")
    WRITE_OFF = strawberry.enum_value("write_off", description="The part of a charge that nobody can pay, borne by the service.")
    FEE = strawberry.enum_value("fee", description="What Stripe keeps of a payment.")

    @classmethod
    def of(cls, kind: enums.TransferKind) -> "TransferKind":
        """The kind as the contract names it."""
        return cls.TOP_UP if kind is enums.TransferKind.SUBSCRIPTION else cls[kind.name]

    @property
    def booked(self) -> tuple[enums.TransferKind, ...]:
        """The kinds that the ledger has under this name."""
        kind = enums.TransferKind[self.name]
        return (kind, enums.TransferKind.SUBSCRIPTION) if self is TransferKind.TOP_UP else (kind,)


@strawberry.enum(description="How serious a log line is.")
class LogLevel(enum.Enum):
    """LogLevel, as the contract has it."""

    INFO = strawberry.enum_value("info", description="For the record.")
    WARNING = strawberry.enum_value("warning", description="Worth a look.")
    ERROR = strawberry.enum_value("error", description="Something failed.")


@strawberry.enum(description="Why a mutation did not do what was asked. New values may be added; treat an unknown one as INVALID.")
class UserErrorCode(enum.Enum):
    """UserErrorCode, as the contract has it."""

    INVALID = strawberry.enum_value("invalid", description="The value is malformed.")
    REQUIRED = strawberry.enum_value("required", description="A value is needed.")
    TOO_LARGE = strawberry.enum_value("too_large", description="The value is too long or too large.")
    TOO_SMALL = strawberry.enum_value("too_small", description="The value is too short or too small.")
    TAKEN = strawberry.enum_value("taken", description="The value is taken.")
    NOT_FOUND = strawberry.enum_value("not_found", description="No such thing.")
    INVALID_STATE = strawberry.enum_value("invalid_state", description="Not in this state.")
    WIDER_THAN_CALLER = strawberry.enum_value("wider_than_caller", description="Wider than the caller's own rights.")
    QUOTA_EXCEEDED = strawberry.enum_value("quota_exceeded", description="A quota of the tier is used up.")
    INSUFFICIENT_CREDIT = strawberry.enum_value("insufficient_credit", description="Too little credit.")
    IDEMPOTENCY_CONFLICT = strawberry.enum_value("idempotency_conflict", description="The same idempotency key came with another input.")
    IDEMPOTENCY_IN_PROGRESS = strawberry.enum_value(
        "idempotency_in_progress", description="The first request with this idempotency key is still under way."
    )
    PAYMENT_DECLINED = strawberry.enum_value("payment_declined", description="Stripe refused.")
    PAYMENT_UNAVAILABLE = strawberry.enum_value("payment_unavailable", description="Stripe could not be reached.")


_describe(
    enums.TopUpStatus,
    "Where a top-up stands.",
    {
        "OPEN": "The customer has not paid yet.",
        "PENDING": "The customer has paid, and the money is on its way.",
        "FULFILLED": "The credit is booked.",
        "FAILED": "The payment failed.",
        "EXPIRED": "The page to pay at was left unused.",
    },
)
_describe(
    enums.InvoiceStatus,
    "Where an invoice stands; the values are Stripe's.",
    {"DRAFT": "Not sent yet.", "OPEN": "To be paid.", "PAID": "Paid.", "VOID": "Taken back.", "UNCOLLECTIBLE": "Given up."},
)
_describe(
    enums.RefundStatus,
    "Where a refund stands.",
    {
        "PENDING": "It is on its way.",
        "SUCCEEDED": "The customer has it.",
        "FAILED": "It came back.",
        "CANCELLED": "It was stopped.",
    },
)
_describe(
    enums.DisputeStatus,
    "Where a dispute stands.",
    {
        "INQUIRY": "The bank asks, and has taken nothing.",
        "OPEN": "The bank has taken the money, and has not decided.",
        "WON": "The money came back.",
        "LOST": "The money is lost.",
    },
)
_describe(
    enums.Scope,
    "What a credential may do.",
    {
        "INFERENCE": "Call models.",
        "USAGE_READ": "Read one's own usage.",
        "USAGE_READ_ALL": "Read everybody's usage in the workspace.",
        "USAGE_WRITE": "Log usage by hand.",
        "KEYS_READ": "See keys.",
        "KEYS_WRITE": "Make, change and revoke keys.",
        "CLIENT_TOKENS_WRITE": "Make and revoke client tokens.",
        "APPS_READ": "See apps and deployments.",
        "APPS_WRITE": "Change and deploy apps.",
        "BILLING_READ": "See tier, balance and ledger.",
        "BILLING_WRITE": "Open checkout and portal pages.",
        "MEMBERS_READ": "See members.",
        "MEMBERS_WRITE": "Change settings and members.",
        "ALERTS_READ": "See alert rules, webhook endpoints and deliveries.",
        "ALERTS_WRITE": "Change alert rules and webhook endpoints, and replay deliveries.",
        "AUDIT_READ": "See the audit log.",
        "OPERATOR": "Run the service: every workspace, prices, margins, corrections of usage and credit. Never granted by a workspace role.",
    },
)
_describe(
    enums.Dialect,
    "A wire format of inference.",
    {"ANTHROPIC": "Anthropic Messages.", "OPENAI": "OpenAI Chat Completions and Responses."},
)
_describe(
    enums.UpstreamState,
    "Whether calls are sent to an upstream.",
    {
        "HEALTHY": "They are.",
        "COOLING_DOWN": "They are not for a while, after failures or at the provider's limit.",
        "DISABLED": "They are not; the configuration says so.",
    },
)
_describe(
    enums.Role,
    "What a person may do in a workspace. Each role is a set of scopes.",
    {
        "OWNER": "Everything, and the only one that can remove an owner.",
        "ADMIN": "Everything but owners.",
        "DEVELOPER": "Keys, apps and usage.",
        "BILLING": "Tier, credits and usage.",
        "VIEWER": "Read only.",
    },
)
_describe(
    enums.ActorKind,
    "What kind of actor did something.",
    {
        "USER": "A person in the console.",
        "API_KEY": "A key or client token.",
        "OPERATOR": "An operator of the service.",
        "SYSTEM": "The service itself: a job, a sweep, or a message from Stripe.",
    },
)
_describe(
    enums.ApiKeyMode,
    "Whether a key's calls are real.",
    {
        "LIVE": "They reach every model and cost money.",
        "TEST": "They reach the built-in `echo` model only, and never touch money.",
    },
)
_describe(
    enums.ApiKeyKind,
    "What a key pays with.",
    {
        "SUBSCRIPTION": "The tier's quota: the tool routes only.",
        "PAY_PER_TOKEN": "Prepaid credit: every route.",
    },
)
_describe(
    enums.ApiKeyStatus,
    "Whether a key works.",
    {
        "ACTIVE": "It works.",
        "REVOKED": "It was revoked.",
        "EXPIRED": "Its time is over.",
    },
)
_describe(
    enums.ExportDataset,
    "What an export holds.",
    {
        "USAGE": "A usage report.",
        "USAGE_RECORDS": "Usage records.",
        "TRANSACTIONS": "The credit statement.",
        "AUDIT_EVENTS": "The audit log.",
    },
)
_describe(
    enums.ExportFormat,
    "The format of an export.",
    {
        "CSV": "Comma-separated values, with a header line.",
        "JSON_LINES": "One JSON object on each line.",
        "PARQUET": "Apache Parquet.",
    },
)
_describe(
    enums.ExportColumns,
    "The columns of an export.",
    {
        "NATIVE": "Ours, named as in this schema.",
        "FOCUS": "Those of the FinOps Open Cost and Usage Specification.",
    },
)
_describe(
    enums.AlertMetric,
    "What an alert rule measures.",
    {
        "SPEND": "The charge of the window, in money.",
        "BALANCE": "What can be spent, in money.",
        "TOKENS": "The tokens of the window.",
        "ERRORS": "The failed calls of the window.",
        "BUDGET_PERCENT": "Any budget of the subject, in percent.",
    },
)
_describe(
    enums.WebhookDeliveryStatus,
    "Where a delivery stands.",
    {
        "PENDING": "It waits for its first or next try.",
        "DELIVERED": "It was taken.",
        "FAILED": "It was given up.",
    },
)
_describe(
    enums.UsageOutcome,
    "How a metered call ended.",
    {
        "SUCCEEDED": "It finished well.",
        "FAILED": "The provider or the gateway failed.",
        "CANCELLED": "The caller went away.",
        "REFUSED": "A limit, a budget or the balance refused it.",
    },
)
_describe(
    enums.UsageRecordStatus,
    "Whether a usage record counts.",
    {
        "ACTIVE": "It counts.",
        "REFUNDED": "It counts, and its charge was given back.",
        "VOIDED": "It does not count.",
    },
)
_describe(
    enums.TokenCountSource,
    "Where token numbers come from.",
    {
        "PROVIDER": "The provider reported them.",
        "ESTIMATE": "The gateway estimated them, because the provider did not report any.",
        "MANUAL": "A person entered them.",
    },
)
_describe(
    enums.LedgerAccountKind,
    "What an account of the ledger holds.",
    {
        "CASH": "Credit that a workspace bought.",
        "GRANT": "Promotional credit of one grant.",
        "WALLET": "Credit of one end user.",
        "PAYMENTS": "The service's money at Stripe.",
        "REVENUE": "What the service earned.",
        "PROMOTIONS": "What the service gave away.",
        "BREAKAGE": "What expired unspent.",
        "DISPUTES": "What is contested at banks.",
        "ADJUSTMENTS": "What operators and reconciliations corrected.",
        "WRITE_OFFS": "What nobody could pay.",
        "FEES": "What Stripe kept.",
        "SUSPENSE": "What arrived and cannot be booked yet, such as another currency.",
    },
)
_describe(
    enums.JobStatus,
    "Where a job stands.",
    {
        "AWAITING_UPLOAD": "Files are still to be sent.",
        "QUEUED": "It waits for a worker.",
        "RUNNING": "A worker has it.",
        "SUCCEEDED": "It finished well.",
        "FAILED": "It ended with an error.",
        "CANCELLED": "It was stopped.",
    },
)
_describe(
    records.Order,
    "What the request log can be sorted by.",
    {"CREATED_AT": "When the call began.", "COST": "The charge.", "LATENCY": "Time to the last byte."},
    name="UsageRecordOrderField",
)
_describe(
    registry.Order,
    "What apps can be sorted by.",
    {"CREATED_AT": "When it was registered.", "UPDATED_AT": "When it last changed.", "NAME": "The display name."},
    name="AppOrderField",
)
_describe(
    enums.Bucket,
    "A kind of usage that is counted and priced apart. No token is in two buckets, except that reasoning is a part of output.",
    {
        "UNCACHED_INPUT": "Tokens of input that no cache was involved in.",
        "CACHE_READ": "Tokens of input read from the prompt cache.",
        "CACHE_WRITE_5M": "Tokens of input written to the prompt cache for five minutes.",
        "CACHE_WRITE_1H": "Tokens of input written to the prompt cache for an hour.",
        "OUTPUT": "Tokens of output.",
        "REASONING": "Tokens of reasoning, a part of output.",
        "AUDIO_INPUT": "Tokens of audio heard.",
        "AUDIO_OUTPUT": "Tokens of audio spoken.",
        "IMAGES": "Images made.",
        "WEB_SEARCHES": "Web searches.",
        "CHARACTERS": "Characters of text spoken.",
        "SECONDS": "Seconds of audio written down.",
        "CALLS": "The call itself.",
    },
)
_describe(
    enums.ModelCapability,
    "What a model can do.",
    {
        "STREAMING": "Stream.",
        "TOOLS": "Call tools.",
        "VISION": "See images.",
        "REASONING": "Think before answering.",
        "PROMPT_CACHE": "Cache prompts.",
        "STRUCTURED_OUTPUT": "Answer in a given JSON schema.",
        "EMBEDDINGS": "Make embeddings.",
        "SPEECH": "Speak a text.",
        "TRANSCRIPTION": "Write down what was said.",
    },
)
_describe(
    enums.LimitPer,
    "Whose calls count together against a bound.",
    {
        "TOGETHER": "All calls of the thing that has the bound.",
        "END_USER": "Each end user's calls apart.",
        "ADDRESS": "Each network address's calls apart.",
    },
)
_describe(
    enums.Resource,
    "What a tier can limit.",
    {
        "API_CALLS": "Calls, on every route.",
        "TOKENS": "Tokens.",
        "CONVERSATIONS": "Distinct conversation IDs of the window.",
        "CREDITS": "Credit units of document 1; one is a US cent unless the operator says otherwise.",
        "WEB_HOST_NODES": "Serving nodes: hosted sites over sites on one node, rounded up.",
        "SITES_PER_NODE": "Hosted sites on one serving node.",
        "HOSTED_SITES": "Apps with a live deployment.",
        "APPS": "Apps; document 2 calls them instances.",
        "MEMBERS": "Members.",
    },
)
_describe(
    windows.RelativeRange,
    "A window that ends now.",
    {
        "LAST_HOUR": "The last hour.",
        "LAST_24_HOURS": "The last 24 hours, in hours.",
        "LAST_7_DAYS": "Today and the six local days before.",
        "LAST_30_DAYS": "Today and the 29 local days before.",
        "LAST_90_DAYS": "Today and the 89 local days before.",
        "LAST_12_MONTHS": "This local calendar month and the eleven before.",
        "MONTH_TO_DATE": "This local calendar month so far.",
    },
)
_describe(
    windows.BillingPeriod,
    "A billing period.",
    {
        "CURRENT": "The one under way.",
        "PREVIOUS": "The one before.",
    },
)
_describe(
    activity.ActivityView,
    "Which activity chart.",
    {"DAILY": "Seven local days.", "WEEKLY": "Twelve weeks that begin on Monday.", "MONTHLY": "Twelve months."},
)
_describe(
    windows.Granularity,
    "The width of a bucket.",
    {
        "AUTO": "Chosen by the length of the window.",
        "MINUTE": "A minute; windows up to 6 hours.",
        "HOUR": "An hour; windows up to 31 days.",
        "DAY": "A local day.",
        "WEEK": "A local week from Monday.",
        "MONTH": "A local calendar month.",
    },
)
_describe(
    metrics.Dimension,
    "What usage can be split by.",
    {
        "MODEL": "The model that answered.",
        "PROVIDER": "The upstream provider.",
        "APP": "The app.",
        "API_KEY": "The API key.",
        "USER": "The person.",
        "END_USER": "The end user, as calls name it.",
        "CONVERSATION": "The conversation.",
        "TAG": "One of the tags that calls carry.",
        "WORKSPACE": "The workspace, in the operator's reports.",
        "PRESET": "The tool preset.",
        "API_NAME": "The metered API.",
        "ENDPOINT": "The path called.",
        "LANGUAGE": "The language of the content.",
        "OUTCOME": "How the call ended.",
        "HTTP_STATUS": "The HTTP status answered.",
    },
    name="UsageDimension",
)
_describe(
    metrics.Metric,
    "What usage can be ranked by.",
    {
        "REQUESTS": "Calls.",
        "ERRORS": "Failed calls.",
        "TOKENS": "All tokens.",
        "LIST_VALUE": "What it is worth at list price.",
        "COST": "What the workspace was charged.",
        "UPSTREAM_COST": "What the upstreams charged. Needs scope `OPERATOR`.",
        "MARGIN": "Charge less upstream cost. Needs scope `OPERATOR`.",
        "CREDITS": "Credit units.",
        "CHARACTERS": "Characters.",
        "LINES": "Lines.",
        "RUNS": "Runs.",
        "UNITS": "Units.",
    },
    name="UsageMetric",
)
_describe(
    receipts.CallState,
    "Where a call stands.",
    {
        "REFUSED": "It was refused before anything was set aside.",
        "ADMITTED": "It is durable, with its hold; no progress yet.",
        "RUNNING": "The upstream answers, and progress is kept every two seconds.",
        "SETTLED": "It is over, metered and charged.",
        "ABANDONED": "It is over, nothing was delivered, and its hold was released.",
    },
)
_describe(
    receipts.ClampReason,
    "What bounded a clamped call.",
    {"BALANCE": "The balance.", "BUDGET": "A budget.", "QUOTA": "A quota or limit.", "CLIENT_TOKEN": "The client token's cap."},
)
_describe(
    receipts.FundingSource,
    "What pays for a call.",
    {"QUOTA": "A subscription's quota.", "GRANT": "Promotional credit.", "CASH": "Bought credit.", "WALLET": "An end user's wallet."},
)
_describe(
    enums.HoldState,
    "Where a hold stands. It is closed once.",
    {"OPEN": "It sets credit aside.", "SETTLED": "The call was charged, and the rest released.", "RELEASED": "Nothing was charged."},
)
_describe(enums.BillingCycle, "How often a tier is billed.", {"MONTHLY": "Every month.", "YEARLY": "Every year."})
_describe(
    enums.SubscriptionStatus,
    "Where a subscription stands; the values are Stripe's.",
    {
        "TRIALING": "In trial.",
        "ACTIVE": "Paid.",
        "PAST_DUE": "The last payment failed; Stripe is trying again.",
        "CANCELED": "Over.",
        "UNPAID": "Stripe has given up trying.",
        "INCOMPLETE": "The first payment is not made yet.",
        "INCOMPLETE_EXPIRED": "The first payment was never made.",
        "PAUSED": "Stopped for a while.",
    },
)
_describe(
    enums.SubscriptionSource,
    "Who keeps a subscription going.",
    {
        "STRIPE": "Stripe, by payment.",
        "GRANTED": "An operator, without payment.",
    },
)
_describe(
    grants.GrantStatus,
    "Whether a grant can be spent.",
    {
        "ACTIVE": "It can.",
        "USED_UP": "Nothing is left.",
        "EXPIRED": "Its time is over.",
        "REVOKED": "It was taken back.",
    },
)
_describe(
    enums.CacheMissReason,
    "Why the prompt cache was not read.",
    {
        "PREFIX_CHANGED": "The prompt differs within the prefix.",
        "EXPIRED": "The entry had run out of time.",
        "MODEL_CHANGED": "Another model answered.",
        "UPSTREAM_CHANGED": "Another upstream answered.",
        "NOT_MARKED": "The prompt had no cache breakpoint.",
    },
)
_describe(
    enums.PromptPart,
    "A part of a prompt, in the order in which it is cached.",
    {"TOOLS": "The tools.", "SYSTEM": "The system prompt.", "MESSAGES": "The messages."},
)
