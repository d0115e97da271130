"""Who asks, what the process holds for answering, and the loaders that make one statement of many look-ups."""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar
from uuid import UUID

from strawberry.dataloader import DataLoader

from domain import webhooks
from domain.access import client_tokens, end_users, keys, limits, users, workspaces
from domain.access.callers import Caller
from domain.access.client_tokens import TokenView
from domain.access.end_users import EndUserView, Named
from domain.access.keys import KeyView
from domain.access.limits import BoundView
from domain.access.users import UserView
from domain.access.workspaces import WorkspaceView
from domain.apps import deployments, registry
from domain.apps.addresses import Addresses
from domain.apps.blobs import Store
from domain.apps.deployments import DeploymentView
from domain.apps.registry import AppView
from domain.errors import Unauthenticated
from domain.money import ledger, topups
from domain.money.bills import Bills
from domain.money.catalogue import Book, ModelView
from domain.money.ledger import AccountView, TransferView
from domain.money.processor import Processor
from domain.money.topups import DisputeView, RefundView, TopUpView
from domain.serving.presets import PresetView
from domain.serving.routing import Routes
from domain.usage import measure, records
from domain.usage.feed import Feed
from domain.usage.metrics import MOST_GROUPS, Detail, Dimension, Metrics, Question, Runs, UsageFilter
from domain.usage.records import Adjustment, RecordView
from domain.usage.windows import Window
from domain.webhooks import EndpointView
from models.enums import Scope

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class Facilities:
    """What the process lends to GraphQL, made once.

    `offered` lists what a call may name: routing aliases and the models that some upstream answers; `find` gives one by its name or alias,
    served or not. `signing_secret` signs invitations. `public_url` is the base address as clients see it, without a slash at its end.
    `presets` are those of the inference road. `webhooks_private` lets webhooks go to addresses inside the network. `payments` is Stripe, where it
    is configured. `store` keeps files of apps, `addresses` tells where they are served.
    `bills` asks providers what they billed, where there are keys for it.
    """

    book: Book
    offered: Callable[[], list[ModelView]]
    find: Callable[[str], ModelView | None]
    routes: Routes = field(repr=False)
    signing_secret: str = field(repr=False)
    public_url: str
    version: str
    feed: Feed = field(default_factory=Feed, repr=False)
    presets: tuple[PresetView, ...] = ()
    webhooks_private: bool = False
    payments: Processor | None = field(default=None, repr=False)
    store: Store | None = None
    bills: Bills | None = None
    addresses: Addresses = field(default_factory=lambda: Addresses("http", "localhost", 8000))


@dataclass(frozen=True)
class KeyTotals:
    """A question for the totals of one key: alike questions of one request are measured together."""

    key_id: UUID
    window: Window
    narrowed: UsageFilter
    details: frozenset[Detail]
    columns: frozenset[str]


@dataclass
class Asking:
    """One request's caller and loaders. Loaders batch and keep nothing, since a WebSocket's live as long as it does."""

    caller: Caller | None
    facilities: Facilities = field(repr=False)

    def __post_init__(self) -> None:
        """Make the loaders."""
        self.users: DataLoader[UUID, UserView | None] = _loader(users.find_many)
        self.workspaces: DataLoader[UUID, WorkspaceView | None] = _loader(self._workspaces)
        self.keys: DataLoader[UUID, KeyView | None] = _loader(self._keys)
        self.apps: DataLoader[UUID, AppView | None] = _loader(self._apps)
        self.client_tokens: DataLoader[UUID, TokenView | None] = _loader(self._client_tokens)
        self.end_users: DataLoader[UUID, EndUserView | None] = _loader(self._end_users)
        self.end_users_named: DataLoader[Named, EndUserView | None] = _loader(self._end_users_named)
        self.live_deployments: DataLoader[UUID, DeploymentView | None] = _loader(self._live_deployments)
        self.bounds: DataLoader[UUID, list[BoundView] | None] = _loader(self._bounds)
        self.accounts: DataLoader[tuple[UUID, UUID], AccountView | None] = _loader(self._accounts)
        self.records: DataLoader[UUID, RecordView | None] = _loader(self._records)
        self.adjustments: DataLoader[UUID, list[Adjustment] | None] = _loader(self._adjustments)
        self.top_ups: DataLoader[tuple[UUID, UUID], TopUpView | None] = _loader(self._top_ups)
        self.top_ups_of_transfers: DataLoader[tuple[UUID, UUID], TopUpView | None] = _loader(self._top_ups_of_transfers)
        self.refunds: DataLoader[tuple[UUID, UUID], list[RefundView] | None] = _loader(self._refunds)
        self.disputes: DataLoader[tuple[UUID, UUID], list[DisputeView] | None] = _loader(self._disputes)
        self.transfers_of_calls: DataLoader[UUID, list[TransferView] | None] = _loader(self._transfers_of_calls)

        self.webhook_endpoints: DataLoader[UUID, EndpointView | None] = _loader(self._webhook_endpoints)
        self.totals_of_keys: DataLoader[KeyTotals, Metrics] = DataLoader(load_fn=self._totals_of_keys, cache=False)

    @property
    def known(self) -> Caller:
        """The caller; raises Unauthenticated when there is none."""
        if self.caller is None:
            raise Unauthenticated
        return self.caller

    def within(self, workspace_id: UUID) -> Caller:
        """The caller inside a workspace: the current one, or any for an operator, who may read its money there. Raises MissingScope."""
        if self.known.workspace_id == workspace_id:
            return self.known
        self.known.require(Scope.OPERATOR)
        return replace(self.known, workspace_id=workspace_id, scopes=self.known.scopes | {Scope.BILLING_READ})

    def may(self, *scopes: Scope) -> bool:
        """Whether the caller holds every scope."""
        return self.caller is not None and set(scopes) <= self.caller.scopes

    async def _workspaces(self, ids: list[UUID]) -> Mapping[UUID, WorkspaceView]:
        return await workspaces.find_many([each for each in ids if self.known.operator or each == self.known.workspace_id])

    async def _keys(self, ids: list[UUID]) -> Mapping[UUID, KeyView]:
        if not self.may(Scope.KEYS_READ) and set(ids) != {self.known.key_id}:
            return {}
        return await keys.find_many(self.known, ids)

    async def _apps(self, ids: list[UUID]) -> Mapping[UUID, AppView]:
        return await registry.find_many(self.known, ids) if self.may(Scope.APPS_READ) else {}

    async def _client_tokens(self, ids: list[UUID]) -> Mapping[UUID, TokenView]:
        return await client_tokens.find_many(self.known, ids) if self.may(Scope.APPS_READ) else {}

    async def _end_users(self, ids: list[UUID]) -> Mapping[UUID, EndUserView]:
        return await end_users.find_many(self.known, ids) if self.may(Scope.APPS_READ) else {}

    async def _end_users_named(self, asked: list[Named]) -> Mapping[Named, EndUserView]:
        return await end_users.named(self.known, asked) if self.may(Scope.APPS_READ) else {}

    async def _live_deployments(self, app_ids: list[UUID]) -> Mapping[UUID, DeploymentView]:
        return await deployments.live_of(self.known, app_ids) if self.may(Scope.APPS_READ) else {}

    async def _bounds(self, subject_ids: list[UUID]) -> Mapping[UUID, list[BoundView]]:
        return await limits.of_subjects(self.known.workspace(), subject_ids)

    async def _accounts(self, ids: list[tuple[UUID, UUID]]) -> Mapping[tuple[UUID, UUID], AccountView]:
        found: dict[tuple[UUID, UUID], AccountView] = {}
        for workspace_id in dict.fromkeys(workspace_id for workspace_id, _ in ids):
            wanted = [account_id for owner, account_id in ids if owner == workspace_id]
            found |= {
                (workspace_id, account.id): account for account in await ledger.accounts(self.within(workspace_id).workspace(), wanted)
            }
        return found

    async def _top_ups(self, ids: list[tuple[UUID, UUID]]) -> Mapping[tuple[UUID, UUID], TopUpView]:
        return {(owner, id_): view for owner, wanted in self._by_workspace(ids) for id_, view in (await topups.find_many(owner, wanted)).items()}

    async def _top_ups_of_transfers(self, ids: list[tuple[UUID, UUID]]) -> Mapping[tuple[UUID, UUID], TopUpView]:
        found: dict[tuple[UUID, UUID], TopUpView] = {}
        for owner, wanted in self._by_workspace(ids):
            named = await ledger.top_ups_of(owner, wanted)
            views = await topups.find_many(owner, list(named.values()))
            found |= {(owner, transfer): views[top_up] for transfer, top_up in named.items() if top_up in views}
        return found

    async def _refunds(self, ids: list[tuple[UUID, UUID]]) -> Mapping[tuple[UUID, UUID], list[RefundView]]:
        return {(owner, id_): found for owner, wanted in self._by_workspace(ids) for id_, found in (await topups.refunds_of(owner, wanted)).items()}

    async def _disputes(self, ids: list[tuple[UUID, UUID]]) -> Mapping[tuple[UUID, UUID], list[DisputeView]]:
        return {(owner, id_): found for owner, wanted in self._by_workspace(ids) for id_, found in (await topups.disputes_of(owner, wanted)).items()}

    def _by_workspace(self, ids: list[tuple[UUID, UUID]]) -> list[tuple[UUID, list[UUID]]]:
        """Rows by the workspace that the caller may see the money of."""
        owners = dict.fromkeys(owner for owner, _ in ids)
        return [(self.within(owner).require(Scope.BILLING_READ), [id_ for other, id_ in ids if other == owner]) for owner in owners]

    async def _records(self, ids: list[UUID]) -> Mapping[UUID, RecordView]:
        return await records.find_many(self.known, ids) if self.may(Scope.USAGE_READ) else {}

    async def _adjustments(self, record_ids: list[UUID]) -> Mapping[UUID, list[Adjustment]]:
        return await records.adjustments(self.known, record_ids)

    async def _transfers_of_calls(self, call_ids: list[UUID]) -> Mapping[UUID, list[TransferView]]:
        return await ledger.of_calls(self.known, call_ids)

    async def _webhook_endpoints(self, ids: list[UUID]) -> Mapping[UUID, EndpointView]:
        return await webhooks.find_many(self.known, ids) if self.may(Scope.ALERTS_READ) else {}

    async def _totals_of_keys(self, asked: list[KeyTotals]) -> Sequence[Metrics]:
        alike: dict[tuple[Window, UsageFilter, frozenset[Detail], frozenset[str]], list[UUID]] = {}
        for each in asked:
            wanted = alike.setdefault((each.window, replace(each.narrowed, api_keys=None), each.details, each.columns), [])
            if each.narrowed.api_keys == (each.key_id,):  # a filter that names other keys leaves nothing of this one
                wanted.append(each.key_id)
        found: dict[KeyTotals, Metrics] = {}
        for (window, narrowed, details, columns), key_ids in alike.items():
            for start in range(0, len(key_ids), MOST_GROUPS):
                some = tuple(key_ids[start : start + MOST_GROUPS])
                narrower = replace(narrowed, api_keys=some)
                question = Question(filter=narrower, by=(Dimension.API_KEY,), first=len(some), details=details, columns=columns)
                for group in await measure.groups(self.known, window, question):
                    key_id = group.values.get(Dimension.API_KEY)
                    assert isinstance(key_id, UUID)
                    found[KeyTotals(key_id, window, replace(narrowed, api_keys=(key_id,)), details, columns)] = group.metrics
        return [found.get(each) or _nothing(each.details) for each in asked]


def _nothing(details: frozenset[Detail]) -> Metrics:
    """What a key has used that has used nothing."""
    return Metrics(
        credits=0 if Detail.CREDITS in details else None,
        other_buckets={} if Detail.OTHER_BUCKETS in details else None,
        runs=Runs() if Detail.RUNS in details else None,
        end_users=0 if Detail.END_USERS in details else None,
        conversations=0 if Detail.CONVERSATIONS in details else None,
        cache_miss_microusd=0 if Detail.CACHE_MISSES in details else None,
    )


def _loader(find: Callable[[list[K]], Awaitable[Mapping[K, V]]]) -> DataLoader[K, V | None]:
    async def load(ids: list[K]) -> Sequence[V | None]:
        found = await find(list(dict.fromkeys(ids)))
        return [found.get(each) for each in ids]

    return DataLoader(load_fn=load, cache=False)


def offered_names(asking: Asking) -> frozenset[str]:
    """Names that calls may give and the catalogue may not have: those of routers."""
    return frozenset(model.name for model in asking.facilities.offered())
