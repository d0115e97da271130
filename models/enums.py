"""Every closed set of words that a table stores: the member's name is GraphQL's, its value is what tables and REST say."""

from enum import StrEnum


class Scope(StrEnum):
    """What a credential may do."""

    INFERENCE = "inference"
    USAGE_READ = "usage_read"
    USAGE_READ_ALL = "usage_read_all"
    USAGE_WRITE = "usage_write"
    KEYS_READ = "keys_read"
    KEYS_WRITE = "keys_write"
    CLIENT_TOKENS_WRITE = "client_tokens_write"
    APPS_READ = "apps_read"
    APPS_WRITE = "apps_write"
    BILLING_READ = "billing_read"
    BILLING_WRITE = "billing_write"
    MEMBERS_READ = "members_read"
    MEMBERS_WRITE = "members_write"
    ALERTS_READ = "alerts_read"
    ALERTS_WRITE = "alerts_write"
    AUDIT_READ = "audit_read"
    OPERATOR = "operator"


class Role(StrEnum):
    """What a person may do in a workspace."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    BILLING = "billing"
    VIEWER = "viewer"


class ActorKind(StrEnum):
    """What kind of actor did something."""

    USER = "user"
    API_KEY = "api_key"
    OPERATOR = "operator"
    SYSTEM = "system"


class ApiKeyKind(StrEnum):
    """What a key pays with."""

    SUBSCRIPTION = "subscription"
    PAY_PER_TOKEN = "pay_per_token"


class ApiKeyMode(StrEnum):
    """Whether a key's calls are real."""

    LIVE = "live"
    TEST = "test"


class ApiKeyStatus(StrEnum):
    """Whether a key works; computed, never stored."""

    ACTIVE = "active"
    REVOKED = "revoked"
    EXPIRED = "expired"


class LimitPer(StrEnum):
    """Whose calls count together against a bound."""

    TOGETHER = "together"
    END_USER = "end_user"
    ADDRESS = "address"


class Measure(StrEnum):
    """What a bound counts. `concurrent` is held while a call is under way, the others are spent; tiers alone count list value and conversations."""

    MONEY = "money"
    CALLS = "calls"
    TOKENS = "tokens"
    CONCURRENT = "concurrent"
    LIST = "list"
    CONVERSATIONS = "conversations"


class SubjectKind(StrEnum):
    """What kind of thing has a bound."""

    WORKSPACE = "workspace"
    MEMBER = "member"
    KEY = "key"
    APP = "app"
    END_USER = "end_user"
    SUBSCRIPTIONS = "subscriptions"


class LedgerAccountKind(StrEnum):
    """What an account of the ledger holds."""

    CASH = "cash"
    GRANT = "grant"
    WALLET = "wallet"
    PAYMENTS = "payments"
    REVENUE = "revenue"
    PROMOTIONS = "promotions"
    BREAKAGE = "breakage"
    DISPUTES = "disputes"
    ADJUSTMENTS = "adjustments"
    WRITE_OFFS = "write_offs"
    FEES = "fees"
    SUSPENSE = "suspense"


class TransferKind(StrEnum):
    """What a transfer books."""

    TOP_UP = "top_up"
    GRANT = "grant"
    CHARGE = "charge"
    LATE = "late"
    CORRECTION = "correction"
    REFUND = "refund"
    REFUND_FAILURE = "refund_failure"
    DISPUTE = "dispute"
    DISPUTE_REVERSAL = "dispute_reversal"
    WALLET = "wallet"
    ADJUSTMENT = "adjustment"
    EXPIRY = "expiry"
    WRITE_OFF = "write_off"
    FEE = "fee"
    SUBSCRIPTION = "subscription"


class HoldState(StrEnum):
    """Where a hold stands. It is closed once."""

    OPEN = "open"
    SETTLED = "settled"
    RELEASED = "released"


class IdempotentAnswerState(StrEnum):
    """Where the answer to an idempotent call stands."""

    CLAIMED = "claimed"
    ANSWERED = "answered"
    TOO_LARGE = "too_large"
    EXPIRED = "expired"


class UpstreamState(StrEnum):
    """Whether calls are sent to an upstream; computed, never stored."""

    HEALTHY = "healthy"
    COOLING_DOWN = "cooling_down"
    DISABLED = "disabled"


class Dialect(StrEnum):
    """The wire format of an inference call."""

    ANTHROPIC = "anthropic"
    OPENAI = "openai"


class UsageOutcome(StrEnum):
    """How a call ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"


class UsageEventKind(StrEnum):
    """What a usage event says: a call's settlement, a record made by hand, or a change of either."""

    CALL = "call"
    MANUAL = "manual"
    LATE = "late"
    CORRECTION = "correction"
    VOID = "void"


class ReratedCallState(StrEnum):
    """Where a call of a re-rating stands; `skipped` was changed by hand, or by another re-rating, after the preview."""

    OPEN = "open"
    POSTED = "posted"
    SKIPPED = "skipped"


class UsageRecordStatus(StrEnum):
    """Whether a usage record counts; computed from its events."""

    ACTIVE = "active"
    REFUNDED = "refunded"
    VOIDED = "voided"


class TokenCountSource(StrEnum):
    """Where token numbers come from."""

    PROVIDER = "provider"
    ESTIMATE = "estimate"
    MANUAL = "manual"


class Bucket(StrEnum):
    """A kind of usage that is counted and priced apart."""

    UNCACHED_INPUT = "uncached_input"
    CACHE_READ = "cache_read"
    CACHE_WRITE_5M = "cache_write_5m"
    CACHE_WRITE_1H = "cache_write_1h"
    OUTPUT = "output"
    REASONING = "reasoning"
    AUDIO_INPUT = "audio_input"
    AUDIO_OUTPUT = "audio_output"
    IMAGES = "images"
    WEB_SEARCHES = "web_searches"
    CHARACTERS = "characters"
    SECONDS = "seconds"
    CALLS = "calls"


class ModelCapability(StrEnum):
    """What a model can do."""

    STREAMING = "streaming"
    TOOLS = "tools"
    VISION = "vision"
    REASONING = "reasoning"
    PROMPT_CACHE = "prompt_cache"
    STRUCTURED_OUTPUT = "structured_output"
    EMBEDDINGS = "embeddings"
    SPEECH = "speech"
    TRANSCRIPTION = "transcription"


class Resource(StrEnum):
    """What a tier or an owner can limit."""

    API_CALLS = "api_calls"
    TOKENS = "tokens"
    CONVERSATIONS = "conversations"
    CREDITS = "credits"
    WEB_HOST_NODES = "web_host_nodes"
    SITES_PER_NODE = "sites_per_node"
    HOSTED_SITES = "hosted_sites"
    APPS = "apps"
    MEMBERS = "members"


class TopUpStatus(StrEnum):
    """Where a payment for credit stands."""

    OPEN = "open"
    PENDING = "pending"
    FULFILLED = "fulfilled"
    FAILED = "failed"
    EXPIRED = "expired"


class RefundStatus(StrEnum):
    """Where a refund stands. A failed one is booked back."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class DisputeStatus(StrEnum):
    """Where a dispute at the customer's bank stands."""

    INQUIRY = "inquiry"
    OPEN = "open"
    WON = "won"
    LOST = "lost"


class InvoiceStatus(StrEnum):
    """Where an invoice stands; the values are Stripe's."""

    DRAFT = "draft"
    OPEN = "open"
    PAID = "paid"
    VOID = "void"
    UNCOLLECTIBLE = "uncollectible"


class SubscriptionSource(StrEnum):
    """Who keeps a subscription going."""

    STRIPE = "stripe"
    GRANTED = "granted"


class SubscriptionStatus(StrEnum):
    """Where a subscription stands; the values are Stripe's."""

    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    CANCELED = "canceled"
    UNPAID = "unpaid"
    INCOMPLETE = "incomplete"
    INCOMPLETE_EXPIRED = "incomplete_expired"
    PAUSED = "paused"


class BillingCycle(StrEnum):
    """How often a tier is billed."""

    MONTHLY = "monthly"
    YEARLY = "yearly"


class JobStatus(StrEnum):
    """Where a job stands."""

    AWAITING_UPLOAD = "awaiting_upload"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AlertMetric(StrEnum):
    """What an alert rule measures."""

    SPEND = "spend"
    BALANCE = "balance"
    TOKENS = "tokens"
    ERRORS = "errors"
    BUDGET_PERCENT = "budget_percent"


class WebhookDeliveryStatus(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class CacheMissReason(StrEnum):
    """Why the prompt cache was not read."""

    PREFIX_CHANGED = "prefix_changed"
    EXPIRED = "expired"
    MODEL_CHANGED = "model_changed"
    UPSTREAM_CHANGED = "upstream_changed"
    NOT_MARKED = "not_marked"


class PromptPart(StrEnum):
    """A part of a prompt, in the order in which it is cached."""

    TOOLS = "tools"
    SYSTEM = "system"
    MESSAGES = "messages"


class ExportDataset(StrEnum):
    """What an export holds."""

    USAGE = "usage"
    USAGE_RECORDS = "usage_records"
    TRANSACTIONS = "transactions"
    AUDIT_EVENTS = "audit_events"


class ExportFormat(StrEnum):
    """The format of an export."""

    CSV = "csv"
    JSON_LINES = "json_lines"
    PARQUET = "parquet"


class ExportColumns(StrEnum):
    """The columns of an export."""

    NATIVE = "native"
    FOCUS = "focus"
