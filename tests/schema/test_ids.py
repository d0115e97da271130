"""Global IDs: opaque, exact, and nothing at all when they are junk."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from schema import ids


@given(st.sampled_from(["ApiKey", "UsageRecord", "Workspace"]), st.uuids())
def test_an_id_names_its_row_and_no_other_type_s(kind: str, row: UUID) -> None:
    """What was encoded is decoded, and only as the type that it names."""
    made = ids.encode(kind, row)
    assert (ids.decode(made), ids.uuid_of(kind, made)) == ((kind, str(row)), row)
    assert ids.uuid_of("Member", made) is None
    assert set(made) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.text())
def test_junk_is_none_and_never_an_error(text: str) -> None:
    """Any text at all is either an ID that we made or None."""
    found = ids.decode(text)
    assert found is None or ids.encode(*found) == text
    assert ids.uuid_of("ApiKey", text) is None


@given(st.uuids())
def test_one_row_has_one_id(row: UUID) -> None:
    """Other spellings of the same row are not accepted, so that IDs can be compared as text."""
    made = ids.encode("ApiKey", row)
    for other in (made + "=", made + "A", ids.encode("ApiKey", str(row).upper()), ids.encode("ApiKey", row.hex)):
        assert other == made or ids.uuid_of("ApiKey", other) is None
