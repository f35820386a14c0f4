"""Finds and repairs what was left undone when a part of the system died: docs/sweeper.md."""
