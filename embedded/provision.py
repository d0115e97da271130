"""The roles and the database that Tallygate needs, made or brought up to date in any number of runs."""

import re

from embedded.postgres import Postgres

OWNER = "tallygate_owner"
APPLICATION = "tallygate_app"
DATABASE = "tallygate"

# Trust over a socket of mode 0700 stands in for passwords here; ops/postgres/ makes the same roles with passwords.
ROLES = """
SELECT format('CREATE ROLE %I', name) FROM unnest(ARRAY[:'owner', :'application']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \\gexec
ALTER ROLE :"owner" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE :"application" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
"""
CREATE = """
SELECT format('CREATE DATABASE %I OWNER %I TEMPLATE template0', :'name', :'owner')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \\gexec
"""
RIGHTS = """
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"name" TO :"application";
"""


def provision(postgres: Postgres, database: str = DATABASE) -> None:
    """Make the roles `tallygate_owner` and `tallygate_app` and a database that the first one owns; idempotent.

    The application's role may connect and nothing else: what it may do with a table is said by the migration that makes the
    table. Raises EmbeddedError with the server's words.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", database):
        raise ValueError("a database is named by at most 63 lower-case letters, digits and underscores")
    variables = {"owner": OWNER, "application": APPLICATION, "name": database}
    postgres.run_sql(ROLES + CREATE + RIGHTS, variables=variables)
    postgres.run_sql('GRANT USAGE ON SCHEMA public TO :"application";', database=database, variables=variables)
