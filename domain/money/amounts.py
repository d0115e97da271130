"""Exact amounts: integers with their unit in their name, and their one way in and out of text."""

from decimal import Decimal, InvalidOperation

MICRO = 1_000_000
PICO_PER_MICRO = 1_000_000
LARGEST_MICROUSD = 2**53 - 1
"""What every client can hold as a JSON number."""


def usd(microusd: int) -> str:
    """Return microdollars as dollars in decimal, without exponent and without trailing zeros past the cent: `12.345678`, `5.00`."""
    sign = "-" if microusd < 0 else ""
    dollars, micros = divmod(abs(microusd), MICRO)
    digits = f"{micros:06d}"
    return f"{sign}{dollars}.{digits[:2]}{digits[2:].rstrip('0')}"


def picos_as_usd(picousd: int) -> str:
    """Return picodollars as dollars in decimal, exact, without trailing zeros past the cent."""
    sign = "-" if picousd < 0 else ""
    dollars, picos = divmod(abs(picousd), MICRO * PICO_PER_MICRO)
    digits = f"{picos:012d}"
    return f"{sign}{dollars}.{digits[:2]}{digits[2:].rstrip('0')}"


def parse_decimal(text: str, *, places: int) -> int:
    """Return a decimal number scaled by 10^places as an integer, exactly.

    Raises ValueError for anything that is not a finite number, has more digits than `places`, an exponent, or would not fit 63 bits.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError("not a number") from None
    if not value.is_finite():
        raise ValueError("not a finite number")
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    if len(digits) > 40 or abs(exponent) > 40:
        raise ValueError("out of range")
    scaled: int = int("".join(map(str, digits))) * 10 ** max(exponent + places, 0)
    if exponent + places < 0:
        scaled, rest = divmod(scaled, 10 ** -(exponent + places))
        if rest:
            raise ValueError(f"more than {places} decimals")
    if scaled >= 2**63:
        raise ValueError("out of range")
    return -scaled if sign else scaled
