"""The cost page's arithmetic holds, and its instance price is the one that the controller uses."""

import re
from pathlib import Path

import pytest

from scanfleet.prices import windows_prices

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cost.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", PAGE, flags=re.MULTILINE
)  # what, quantity, price, product


@pytest.mark.parametrize(("what", "quantity", "price", "product"), ROWS, ids=[row[0] for row in ROWS])
def test_a_rows_cost_is_its_quantity_times_its_price(what, quantity, price, product):
    decimals = len(product.partition(".")[2])

    assert float(product) == pytest.approx(float(quantity) * float(price), abs=0.51 * 10**-decimals), what


def test_every_table_of_the_page_was_read():
    assert len(ROWS) >= 20


def test_the_pages_hourly_price_is_the_tables():
    price = windows_prices("us-east-1")["g4dn.xlarge"]

    assert f"| {price} |" in PAGE


def test_the_monthly_sum_that_the_page_names_is_the_sum_of_its_rows():
    idle = PAGE.partition("## An idle deployment")[2].partition("Together about")[0]
    costs = re.findall(r"\| [\d.]+ \| [\d.]+ \| ([\d.]+) \|", idle)
    (named,) = re.findall(r"Together about (\d+) dollars", PAGE)

    assert sum(map(float, costs)) == pytest.approx(float(named), rel=0.03)
