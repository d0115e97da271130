"""Stripe's invoices."""

import datetime
from typing import Self

import strawberry
from strawberry import field

from domain.money.renewals import InvoiceView
from domain.pages import PageOf
from models import enums
from resolvers import payments as resolvers
from schema import ids, pages
from schema.amounts import Money
from schema.context import Info
from schema.fields import resolved
from schema.nodes import Node
from schema.scalars import URL, SafeInt


@strawberry.type(description="An invoice of Stripe's.")
class Invoice(Node):
    """As the contract has it."""

    id: strawberry.ID = field(description="The opaque global ID.")
    number: str | None = field(description="Its number; null while it is a draft.")
    status: enums.InvoiceStatus = field(description="Where it stands; the values are Stripe's.")
    description: str | None = field(description="What it is for, in a line.")
    amount: Money = field(description="Its total, tax included.")
    url: URL | None = field(description="The page that shows it.")
    pdf_url: URL | None = field(description="The same as PDF.")
    created_at: datetime.datetime = field(description="When it was made.")

    @classmethod
    def of(cls, invoice: InvoiceView) -> Self:
        """The invoice as GraphQL shows it."""
        return cls(
            id=ids.encode("Invoice", invoice.id),
            number=invoice.number,
            status=invoice.status,
            description=invoice.description,
            amount=Money.of(invoice.amount),
            url=URL(invoice.url) if invoice.url else None,
            pdf_url=URL(invoice.pdf_url) if invoice.pdf_url else None,
            created_at=invoice.created_at,
        )


@strawberry.type(description="An invoice and its place.")
class InvoiceEdge:
    """As the contract has it."""

    cursor: str = field(description="Its place.")
    node: Invoice = field(description="The invoice.")


@strawberry.type(description="A page of invoices.")
class InvoiceConnection:
    """A page of the list."""

    page: strawberry.Private[PageOf[InvoiceView]]

    @resolved("The page.")
    def edges(self) -> list[InvoiceEdge]:
        """Show the page."""
        return [InvoiceEdge(cursor=pages.cursor("Invoice", each.id), node=Invoice.of(each)) for each in self.page.items]

    @resolved("The page without cursors.")
    def nodes(self) -> list[Invoice]:
        """Show the page."""
        return [Invoice.of(each) for each in self.page.items]

    @resolved("Where the page begins and ends.")
    def page_info(self) -> pages.PageInfo:
        """Tell the ends."""
        return pages.info("Invoice", self.page, [each.id for each in self.page.items])

    @resolved("How many there are in all; counted only when selected.")
    async def total_count(self, info: Info) -> SafeInt:
        """Count."""
        return SafeInt(await resolvers.count_of_invoices(info.context))
