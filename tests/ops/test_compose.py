"""Every reference in the files for production leads to something: nothing here starts a container."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedded.postgres import programs
from embedded.provision import provision
from settings import Settings
from tests.support.servers import Servers

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("api", "worker", "migrate")
ALIASES = {field.alias for field in Settings.model_fields.values()}
# What the other images document, and what ops/postgres/roles.sh reads.
DOCUMENTED = {
    "postgres": {
        *("POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_INITDB_ARGS"),
        *("TALLYGATE_OWNER_PASSWORD", "TALLYGATE_APP_PASSWORD"),
    },
    "valkey": set(),
    "storage": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "S3_BUCKET"},
}
SECRET = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|TOKEN")
VARIABLE = re.compile(r"\$\{(?P<name>[A-Z0-9_]+)(?P<rest>:[-?][^}]*)?\}")


def texts(value: object) -> list[str]:
    """Every string of a parsed document."""
    if isinstance(value, dict):
        return [text for part in value.values() for text in texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in texts(part)]
    return [value] if isinstance(value, str) else []


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    lines = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()
    found = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("#")]
    return [(name, argument) for name, argument in found]


def manage_commands() -> set[str]:
    """The commands of manage.py, by its own help."""
    shown = subprocess.run([sys.executable, "-m", "manage", "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^  ([a-z][a-z-]*)\b", shown.split("Commands:")[-1], re.MULTILINE))


def test_the_services() -> None:
    """The parts of an installation are all there, and only the API can be reached from outside."""
    assert set(SERVICES) == {*OURS, "postgres", "valkey", "storage"}
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"api"}
    assert SERVICES["api"]["ports"] == ["${TALLYGATE_LISTEN:-127.0.0.1:8000}:8000"]


@pytest.mark.parametrize("name", SERVICES)
def test_images(name: str) -> None:
    """Every image names its release, and those of the databases their major release."""
    repository, _, tag = SERVICES[name]["image"].partition(":")
    expected = {"postgres": ("postgres", "18"), "valkey": ("valkey/valkey", "9"), "storage": ("chrislusf/seaweedfs", "4.47")}
    assert (repository, tag) == expected.get(name, ("tallygate", "0.1.0"))


@pytest.mark.parametrize("name", SERVICES)
def test_environment(name: str) -> None:
    """Every environment name is one that the program reads."""
    names = set(SERVICES[name].get("environment", {}))
    assert names <= (ALIASES if name in OURS else DOCUMENTED[name])


def test_required_settings_are_given() -> None:
    """Each of our services is given every setting that has no default; only the migration has the owner's password."""
    required = {field.alias for field in Settings.model_fields.values() if field.is_required()}
    for name in OURS:
        assert required <= set(SERVICES[name]["environment"])
    assert [name for name in OURS if "MIGRATION_DATABASE_URL" in SERVICES[name]["environment"]] == ["migrate"]


def test_every_setting_can_be_set() -> None:
    """Whatever the program reads can be set in `.env`: it is given to both processes, and nothing that is given is unknown."""
    fixed = {"HOST", "PORT", "MIGRATION_DATABASE_URL"}
    for name in ("api", "worker"):
        assert set(SERVICES[name]["environment"]) - fixed == ALIASES - fixed


def test_the_store_is_the_one_of_this_file() -> None:
    """Files are kept in the bucket that the service makes, under its key; clients cannot reach it, so that uploads come through the gateway."""
    ours, theirs = SERVICES["api"]["environment"], SERVICES["storage"]["environment"]
    settings = {name: VARIABLE.sub(lambda found: (found["rest"] or "")[2:], ours[name]) for name in ("TALLYGATE_STORAGE", "S3_ENDPOINT", "TALLYGATE_UPLOADS")}
    assert settings == {"TALLYGATE_STORAGE": f"s3://{theirs['S3_BUCKET']}", "S3_ENDPOINT": "http://storage:8333", "TALLYGATE_UPLOADS": "gateway"}
    assert (ours["S3_ACCESS_KEY_ID"], ours["S3_SECRET_ACCESS_KEY"]) == (theirs["AWS_ACCESS_KEY_ID"], theirs["AWS_SECRET_ACCESS_KEY"])


def test_no_secret_has_a_default() -> None:
    """Every secret is a required variable with a message, and no text holds a password."""
    whole = " ".join(texts(COMPOSE))
    secrets = [found for found in VARIABLE.finditer(whole) if SECRET.search(found["name"])]
    assert {found["name"] for found in secrets} == {
        "TALLYGATE_SECRET",
        "TALLYGATE_APP_PASSWORD",
        "TALLYGATE_OWNER_PASSWORD",
        "POSTGRES_PASSWORD",
        "STORAGE_ACCESS_KEY_ID",
        "STORAGE_SECRET_ACCESS_KEY",
    }
    assert all((found["rest"] or "").startswith(":?") for found in secrets)
    assert set(re.findall(r"://[^:/@\s]+:([^@\s]*?)@", VARIABLE.sub("variable", whole))) == {"variable"}


def test_database_urls_agree() -> None:
    """The URLs name the roles that the init script makes, the database that the image makes, and services of this file."""
    script = (ROOT / "ops/postgres/roles.sh").read_text()
    urls = [VARIABLE.sub("x", text) for text in texts(SERVICES["migrate"]["environment"]) if "://" in text]
    databases = [re.fullmatch(r"postgresql://(\w+):x@(\w+):5432/(\w+)", url) for url in urls if url.startswith("postgresql")]
    assert {found.groups() for found in databases if found} == {
        ("tallygate_app", "postgres", SERVICES["postgres"]["environment"]["POSTGRES_DB"]),
        ("tallygate_owner", "postgres", SERVICES["postgres"]["environment"]["POSTGRES_DB"]),
    }
    for role in ("tallygate_app", "tallygate_owner"):
        assert re.search(rf"CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD", script)
    assert SERVICES["api"]["environment"]["REDIS_URL"] == "redis://valkey:6379/0"
    for variable in re.findall(r"\$([A-Z_]+)", script):
        assert variable in SERVICES["postgres"]["environment"]


def test_init_script_makes_the_same_roles() -> None:
    """The script for the image, run on a real server, gives the roles and rights that the first run gives."""
    flags = "rolcanlogin, rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolreplication"
    roles = f"SELECT rolname, {flags} FROM pg_roles WHERE rolname LIKE 'tallygate%' ORDER BY 1"
    rights = "SELECT datacl, pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'tallygate'"
    with Servers() as servers:
        postgres = servers.postgres
        postgres.run_sql("CREATE DATABASE tallygate")
        given = {
            "PATH": f"{programs()}:{os.environ['PATH']}", "PGHOST": str(postgres.socket_folder),
            "POSTGRES_USER": "postgres", "POSTGRES_DB": "tallygate",
            "TALLYGATE_OWNER_PASSWORD": "it's", "TALLYGATE_APP_PASSWORD": "b",
        }
        subprocess.run(["bash", ROOT / "ops/postgres/roles.sh"], env=given, capture_output=True, check=True)
        by_script = [postgres.run_sql(roles), postgres.run_sql(rights)]
        assert postgres.run_sql("SELECT count(*) FROM pg_authid WHERE rolpassword LIKE 'SCRAM-SHA-256$%'") == "2"
        provision(postgres)
        assert by_script == [postgres.run_sql(roles), postgres.run_sql(rights)]


@pytest.mark.parametrize("name", SERVICES)
def test_health(name: str) -> None:
    """Every server has a health check (the API the image's own); commands that end or serve nothing switch it off."""
    check: dict[str, Any] = SERVICES[name].get("healthcheck", {})
    if name == "api":
        assert check == {}
        assert [argument for instruction, argument in instructions() if instruction == "HEALTHCHECK"]
    elif name in OURS:
        assert check == {"disable": True}
    else:
        assert check["test"][0] == "CMD"
        assert all(isinstance(part, str) for part in check["test"])
        assert {"interval", "timeout", "retries"} <= set(check)


@pytest.mark.parametrize("name", SERVICES)
def test_references(name: str) -> None:
    """Volumes are declared or are files of the repository; dependencies exist and can reach the awaited condition."""
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        if wanted["condition"] == "service_completed_successfully":
            assert SERVICES[other]["restart"] == "no"
        else:
            assert wanted["condition"] == "service_healthy"
            assert SERVICES[other]["healthcheck"]["test"]


def test_every_volume_is_used() -> None:
    """A declared volume is mounted, and the databases' volumes lie where their images keep data."""
    mounts = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    assert {mount.split(":")[0] for mount in mounts if not mount.startswith("./")} == set(COMPOSE["volumes"])
    assert "postgres:/var/lib/postgresql" in mounts
    assert "valkey:/data" in mounts
    assert "./ops/postgres:/docker-entrypoint-initdb.d:ro" in mounts


def test_commands_exist() -> None:
    """What our image and its services run are commands of manage.py, in exec form."""
    image = [argument for instruction, argument in instructions() if instruction == "CMD"]
    commands = [yaml.safe_load(image[0]), *(SERVICES[name]["command"] for name in OURS if "command" in SERVICES[name])]
    assert commands == [["python", "-m", "manage", part] for part in ("serve", "worker", "migrate")]
    assert {command[-1] for command in commands} <= manage_commands()


def test_our_services_are_confined() -> None:
    """Ours run without root, capabilities or a writable image, and get the time that calls in flight need."""
    assert [argument for instruction, argument in instructions() if instruction == "USER"] == ["10001:10001"]
    for name in OURS:
        service = SERVICES[name]
        assert (service["read_only"], service["cap_drop"], service["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
        assert service["stop_grace_period"] == "60s"


def test_dockerfile_references() -> None:
    """Every COPY names an existing file that .dockerignore lets in, or a stage above; every base names its release."""
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    stages: list[str] = []
    for instruction, argument in instructions():
        if instruction == "FROM":
            base, *name = argument.split(" AS ")
            assert base in stages or re.fullmatch(r"[a-z]+:\d+(\.\d+)?-[a-z-]+", base)
            stages += name
        if instruction == "COPY":
            words = argument.split()
            if words[0].startswith("--from="):
                assert words[0].removeprefix("--from=") in stages
            else:
                assert all(source == "." or (source in let_in and (ROOT / source).exists()) for source in words[:-1])


def test_image_has_the_whole_program() -> None:
    """Every package of the program is let into the image, and nothing private, of tests or of this machine is."""
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench"}
    assert let_in == packages | {"*.py", "requirements.lock", "pyproject.toml", "docs", "examples"}


def test_health_check_asks_the_port_it_serves() -> None:
    """The image's health check is a program in exec form that fails when nothing answers on its port."""
    check = next(argument for instruction, argument in instructions() if instruction == "HEALTHCHECK")
    command = yaml.safe_load(check.split("CMD", 1)[1])
    assert command[:2] == ["python", "-c"]
    done = subprocess.run([sys.executable, "-c", command[2]], env={"PORT": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
