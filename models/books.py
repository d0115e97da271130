"""What the last look at the books said."""

from tortoise import fields
from tortoise.models import Model


class BooksCheck(Model):
    """One check of the books, as the last look found it."""

    name = fields.CharField(max_length=64, primary_key=True)
    broken = fields.BigIntField()
    difference = fields.BigIntField()
    checked_at = fields.DatetimeField()

    class Meta:
        table = "books_check"
