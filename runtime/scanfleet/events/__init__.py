"""Live events: from the job table's stream to whoever listens. docs/events.md tells the way."""
