"""Alert rules: listed, made, changed, deleted."""

from uuid import UUID

from domain.usage import alerts
from domain.usage.alerts import NewRule, RuleChanges, RuleView
from resolvers.asking import Asking


async def every(asking: Asking) -> list[RuleView]:
    """The workspace's rules, oldest first."""
    return await alerts.every(asking.known)


async def create(asking: Asking, new: NewRule) -> RuleView:
    """Watch a threshold."""
    return await alerts.create(asking.known, new)


async def update(asking: Asking, rule_id: UUID, changes: RuleChanges) -> RuleView:
    """Change a rule."""
    return await alerts.update(asking.known, rule_id, changes)


async def remove(asking: Asking, rule_id: UUID) -> UUID:
    """Delete a rule."""
    return await alerts.remove(asking.known, rule_id)
