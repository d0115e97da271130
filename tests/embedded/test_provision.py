"""The roles and the database of a first run."""

from collections.abc import Iterator

import pytest

from embedded.processes import EmbeddedError
from tests.support.servers import Servers


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Servers of this module."""
    with Servers() as started:
        yield started


def test_rights(servers: Servers) -> None:
    """The application's role may connect and nothing else; the owner's role owns the database and is no superuser either."""
    servers.create_database("books")
    servers.create_database("books")  # again: nothing changes, nothing fails
    sql = servers.postgres.run_sql
    roles = sql(
        "SELECT rolname, rolcanlogin, rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolreplication"
        " FROM pg_roles WHERE rolname LIKE 'tallygate%' ORDER BY 1"
    )
    assert roles.split() == ["tallygate_app|t|f|f|f|f|f", "tallygate_owner|t|f|f|f|f|f"]
    assert sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'books'") == "tallygate_owner"
    sql("CREATE TABLE ledger (id int)", database="books", role="tallygate_owner")
    assert sql("SELECT current_user", database="books", role="tallygate_app") == "tallygate_app"
    for refused in ("SELECT * FROM ledger", "CREATE TABLE mine ()", "CREATE TEMP TABLE mine ()", "CREATE SCHEMA mine"):
        with pytest.raises(EmbeddedError, match="permission denied"):
            sql(refused, database="books", role="tallygate_app")


def test_copies(servers: Servers) -> None:
    """A copy of a template has its rows, its owner and its rights; dropping it leaves the template."""
    sql = servers.postgres.run_sql
    servers.create_database("template_books")
    table = "CREATE TABLE t (id int); GRANT SELECT ON t TO tallygate_app; INSERT INTO t VALUES (7)"
    sql(table, database="template_books", role="tallygate_owner")
    servers.create_database("copy_1", template="template_books")
    assert sql("SELECT id FROM t", database="copy_1", role="tallygate_app") == "7"
    servers.drop_database("copy_1")
    servers.drop_database("copy_1")
    assert sql("SELECT datname FROM pg_database WHERE datname IN ('copy_1', 'template_books')") == "template_books"


def test_name_is_checked(servers: Servers) -> None:
    """A name that would need quoting is refused."""
    with pytest.raises(ValueError, match="lower-case letters"):
        servers.create_database("Books; DROP")
