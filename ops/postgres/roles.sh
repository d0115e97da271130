#!/usr/bin/env bash
# Run once by the image `postgres` when its volume is empty: the roles and rights of embedded/provision.py, with passwords.
set -euo pipefail

psql -v ON_ERROR_STOP=1 -v owner_password="$TALLYGATE_OWNER_PASSWORD" -v app_password="$TALLYGATE_APP_PASSWORD" \
  -v name="$POSTGRES_DB" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE ROLE tallygate_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'owner_password';
CREATE ROLE tallygate_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'app_password';
ALTER DATABASE :"name" OWNER TO tallygate_owner;
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"name" TO tallygate_app;
GRANT USAGE ON SCHEMA public TO tallygate_app;
SQL
