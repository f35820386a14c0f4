"""The emulator, with DynamoDB queries that cost what their page costs. Runs in .venv-emulator.

MiniStack gathers, tests and sorts a whole partition for each `Query`: seconds for a page of 100,000 jobs, of
which DynamoDB would read 50. Here a partition's keys are kept sorted, and MiniStack's own query sees only the
items that the page can hold; it decides everything else. An expression is taken apart once, not for each
item. Queries of another form than ours are answered as before. Confirmed equal by
tests/system/test_emulator_queries.py, for the MiniStack that .venv-emulator pins.
"""

import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from ministack.app import main  # type: ignore[import-not-found]
from ministack.services import dynamodb  # type: ignore[import-not-found]

OUR_CONDITION = re.compile(r"\s*(#?\w+) = (:\w+)(?: AND (#?\w+) < (:\w+))?\s*")
OUR_PROJECTION = re.compile(r"#\w+(?:, #\w+)*")
OTHER_FORMS = frozenset({"KeyConditions", "QueryFilter", "AttributesToGet", "ConditionalOperator"})

Table = dict[str, Any]
Place = tuple[str, str, str]
"""Of an item in its partition: value of the index's sort key, partition key, sort key."""
Partition = tuple[str | None, str]
"""Index (None: the table itself) and value of the partition key."""


class Sorted:
    """The sorted places of one table's partitions that were asked for."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._places: dict[Partition, list[Place]] = {}

    def places(self, partition: Partition, sort_name: str) -> list[Place]:
        """Return the partition's places; sorted anew when somebody else has changed how many there are."""
        keys = self._keys(partition)
        found = self._places.get(partition)
        if found is None or len(found) != len(keys):
            items = self.table["items"]
            found = sorted((_text(items[pk][sk], sort_name), pk, sk) for pk, sk in keys)
            self._places[partition] = found
        return found

    def _keys(self, partition: Partition) -> Any:
        index, value = partition
        if index is None:
            return _Pairs(value, self.table["items"].get(value, {}))
        return dynamodb._index_members(self.table).get(index, {}).get(value, {})

    def changed(self, pk: str, sk: str, item: Table, *, is_there: bool) -> None:
        """Keep the partitions right that the item is in."""
        schemas = [(None, self.table["pk_name"], self.table["sk_name"])]
        schemas += [
            (name, *(_only(keys) for keys in both)) for name, *both in dynamodb._index_key_schemas(self.table)
        ]
        for index, hash_name, sort_name in schemas:
            if hash_name not in item or sort_name not in item:
                continue
            found = self._places.get((index, _text(item, hash_name)))
            if found is None:
                continue
            place = (_text(item, sort_name), pk, sk)
            at = bisect_left(found, place)
            present = at < len(found) and found[at] == place
            if is_there and not present:
                insort(found, place)
            elif present and not is_there:
                del found[at]


class _Pairs:
    """The keys of one partition of the table."""

    def __init__(self, pk: str, items: Table) -> None:
        self._pk = pk
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((self._pk, sk) for sk in self._items)


_sorted: dict[int, Sorted] = {}


def _only(names: list[str]) -> str | None:
    return names[0] if len(names) == 1 else None


def _text(item: Table, name: str) -> str:
    return str(dynamodb._extract_key_val(item[name]))


def _of(table: Table) -> Sorted:
    """Return the table's sorted places; a table that was made anew under an old number has none yet."""
    known = _sorted.get(id(table))
    if known is None or known.table is not table:
        known = _sorted[id(table)] = Sorted(table)
    return known


def _page_items(table: Table, data: Table) -> Table | None:
    """Return the items that the page can hold, as the table's `items`; None for queries of other forms."""
    asked = OUR_CONDITION.fullmatch(data.get("KeyConditionExpression", ""))
    if asked is None or not data.get("Limit") or OTHER_FORMS & data.keys():
        return None
    names, values = data.get("ExpressionAttributeNames", {}), data.get("ExpressionAttributeValues", {})
    hash_name, sort_name = _keys_of(table, data.get("IndexName"))
    first, second = (names.get(one, one) for one in (asked[1], asked[3]))
    texts = all(dynamodb._get_attr_type(table, one) == "S" for one in (hash_name, sort_name))
    if sort_name is None or first != hash_name or second not in (None, sort_name) or not texts:
        return None
    wanted, below = (values.get(one, {}).get("S") for one in (asked[2], asked[4]))
    if wanted is None or (asked[4] and below is None):
        return None
    places = _of(table).places((data.get("IndexName"), wanted), sort_name)
    low, high = 0, len(places) if below is None else bisect_left(places, (below,))
    is_forward = data.get("ScanIndexForward", True)
    if start := data.get("ExclusiveStartKey"):
        place = tuple(_text(start, one) for one in (sort_name, table["pk_name"], table["sk_name"]))
        if is_forward:
            low = bisect_right(places, place)
        else:
            high = min(high, bisect_left(places, place))
    count = int(data["Limit"]) + 1
    shown = places[low:high][:count] if is_forward else places[max(low, high - count) : high]
    items: Table = {}
    for _, pk, sk in shown:
        items.setdefault(pk, {})[sk] = table["items"][pk][sk]
    return items


def _keys_of(table: Table, index: str | None) -> tuple[str | None, str | None]:
    if index is None:
        return table["pk_name"], table["sk_name"]
    for name, hashes, ranges in dynamodb._index_key_schemas(table):
        if name == index:
            return _only(hashes), _only(ranges)
    return None, None


def install() -> None:
    """Put this in the place of MiniStack's own."""
    query, set_item, remove_item = dynamodb._query, dynamodb._set_item, dynamodb._remove_item
    tables = dynamodb._tables

    def quick_query(data: Table) -> Any:
        name = dynamodb._normalize_table_name(data.get("TableName", ""))
        table = tables.get(name)
        items = None if table is None else _page_items(table, data)
        if items is None:
            return query(data)
        tables[name] = {**table, "items": items, dynamodb._INDEX_MEMBERS: None}
        try:
            return query(data)
        finally:
            tables[name] = table

    def kept_sorted(write: Callable[..., Any], *, is_there: bool) -> Callable[..., Any]:
        def writing(table: Table, pk: str, sk: str, *item: Table) -> Any:
            before = write(table, pk, sk, *item)
            known = _sorted.get(id(table))
            if known is not None and known.table is table:
                if before is not None:
                    known.changed(pk, sk, before, is_there=False)
                if is_there:
                    known.changed(pk, sk, item[0], is_there=True)
            return before

        return writing

    project_item, tokenize = dynamodb._project_item, lru_cache(dynamodb._tokenize)

    def quick_projection(item: Table, expression: str, names: dict[str, str]) -> Any:
        aliases = expression.split(", ") if OUR_PROJECTION.fullmatch(expression or "") else []
        wanted = {names[one] for one in aliases if one in (names or {})}
        if not aliases or len(wanted) < len(aliases):
            return project_item(item, expression, names)
        return {name: item[name] for name in wanted if name in item}

    dynamodb._project_item = quick_projection
    dynamodb._tokenize = lambda expression: list(tokenize(expression))
    dynamodb._condition_syntax_error = lru_cache(dynamodb._condition_syntax_error)
    dynamodb._query = quick_query
    dynamodb._set_item = kept_sorted(set_item, is_there=True)
    dynamodb._remove_item = kept_sorted(remove_item, is_there=False)


if __name__ == "__main__":
    install()
    main()
