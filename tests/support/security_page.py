"""What docs/security.md says: its tables, row by row."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.support.granted import FOLDERS, ON_OBJECTS, WHOLE_BUCKET, Permission

ROLES = "What each role may do"
RESOURCES = "What others may do to resources"
FINDINGS = "Acknowledged findings"
KEY = re.compile(r"`([a-z0-9-]+:[A-Za-z0-9/-]+)`")
"""An action or a condition key, as the page writes it."""


class Row(NamedTuple):
    """A table's row and the headings above it."""

    section: str
    title: str
    cells: tuple[str, ...]


def read_rows(page: str) -> Iterator[Row]:
    section = title = ""
    for line in page.splitlines():
        if line.startswith("## "):
            section, title = line[3:], ""
        elif line.startswith("### "):
            title = line[4:]
        elif line.startswith("| "):
            cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
            if "---" not in cells[0]:
                yield Row(section, title, cells)


def body(rows: list[Row], section: str) -> list[Row]:
    """Return the section's rows without the tables' first ones, which name the columns."""
    found = [row for row in rows if row.section == section]
    assert found, f"the page has no tables under {section}"
    names = {row.cells for row in found if "`" not in row.cells[0]}
    assert len(names) == 1, names
    return [row for row in found if row.cells not in names]


def quoted(text: str) -> str:
    (found,) = re.findall(r"`([^`]+)`", text)
    return str(found)


def documented_roles(rows: list[Row]) -> set[Permission]:
    return {
        Permission(quoted(row.title), action, row.cells[1] == "`*`", frozenset(KEY.findall(row.cells[2])))
        for row in body(rows, ROLES)
        for action in KEY.findall(row.cells[0])
    }


def documented_trust(page: str) -> set[tuple[str, str, frozenset[str]]]:
    """Return (role, service, condition keys) of the line under each role's heading."""
    found = re.findall(r"^### `([^`]+)`\n+Taken on by `([^`]+)`([^.]*)\.", page, flags=re.MULTILINE)
    return {(role, service, frozenset(KEY.findall(rest))) for role, service, rest in found}


def documented_folders(rows: list[Row]) -> set[tuple[str, str, str]]:
    """Return (role, action on objects, folder of our buckets, or the whole data bucket)."""
    found = set()
    for row in body(rows, ROLES):
        folders = {folder for folder in re.findall(r"`([a-z0-9/]+/)\*`", row.cells[1]) if folder in FOLDERS}
        folders |= {WHOLE_BUCKET} & {part.strip() for part in row.cells[1].split(";")}
        found |= {
            (quoted(row.title), action, folder)
            for action in KEY.findall(row.cells[0])
            if action in ON_OBJECTS
            for folder in folders
        }
    return found


def documented_grants(rows: list[Row]) -> set[tuple[str, str, str, frozenset[str]]]:
    """Return (resource, who, action, condition keys) of what others may do."""
    return {
        (quoted(row.cells[0]), row.cells[1].strip("`"), action, frozenset(KEY.findall(row.cells[3])))
        for row in body(rows, RESOURCES)
        for action in re.findall(r"`([^`]+)`", row.cells[2])
    }
