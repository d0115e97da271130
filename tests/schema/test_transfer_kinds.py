"""The kinds of transfers: the ledger has one more than the contract names."""

from models import enums
from schema.enums import TransferKind


def test_every_kind_is_told_and_found_by_a_name_of_the_contract() -> None:
    """A paid subscription is told as TOP_UP, every other kind by its own name; whoever filters by a name finds what is told by it, once."""
    told = {kind: TransferKind.of(kind).name for kind in enums.TransferKind}
    assert told.pop(enums.TransferKind.SUBSCRIPTION) == "TOP_UP"
    assert told == {kind: kind.name for kind in told}
    found = [kind for name in TransferKind for kind in name.booked]
    assert sorted(found) == sorted(enums.TransferKind)
    assert all(TransferKind.of(kind) is name for name in TransferKind for kind in name.booked)
