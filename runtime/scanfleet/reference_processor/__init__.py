"""The open point-cloud processor: aligns, merges and reports overlapping scans with open libraries."""
