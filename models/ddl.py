"""What migrations need beside Tortoise's own operations: composite keys, constraints of new tables, partitions, functions."""

from collections.abc import Sequence
from typing import Any

from tortoise.migrations import operations as ops
from tortoise.migrations.schema_editor.base import BaseSchemaEditor
from tortoise.migrations.schema_generator.state import State


class CreateTable(ops.CreateModel):
    """Create a model's table with a primary key, constraints and partitions that the ORM cannot say.

    The model names one column as its key; the database has `primary_key`. Constraints of a new model would otherwise not reach the
    database at all (Tortoise 1.1); `tests/models/test_tables.py` reads them back from `pg_constraint`.
    """

    def __init__(
        self, *arguments: Any, primary_key: str, constraints: Sequence[str] = (), partition_by: str | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.primary_key = primary_key
        self.constraints = constraints
        self.partition_by = partition_by

    async def database_forward(
        self, app_label: str, old_state: State, new_state: State, state_editor: BaseSchemaEditor | None = None
    ) -> None:
        """Run the ORM's CREATE TABLE with our clauses in it."""
        if state_editor is None:
            return
        editor: Any = state_editor
        original = editor._run_sql

        async def run(sql: str) -> None:
            if sql.lstrip().upper().startswith("CREATE TABLE"):
                table, close, rest = sql.partition("\n)")  # what follows are the table's indexes and comments
                table = table.replace(" PRIMARY KEY", "")
                clauses = "".join(f",\n    {clause}" for clause in (f"PRIMARY KEY ({self.primary_key})", *self.constraints))
                partition = f" PARTITION BY {self.partition_by}" if self.partition_by else ""
                sql = f"{table}{clauses}{close}{partition}{rest}"
            await original(sql)

        editor._run_sql = run
        try:
            await super().database_forward(app_label, old_state, new_state, state_editor)
        finally:
            editor._run_sql = original
