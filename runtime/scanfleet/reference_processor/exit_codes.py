"""How the program ends; the adapter reads the same numbers. Source of the first three: BSD sysexits.h."""

USAGE_EXIT_CODE = 64
"""The command line or config.json is wrong (EX_USAGE)."""
BAD_INPUT_EXIT_CODE = 65
"""A scan is wrong, or there is none (EX_DATAERR)."""
INTERNAL_EXIT_CODE = 70
"""The program itself went wrong (EX_SOFTWARE)."""
OUT_OF_MEMORY_EXIT_CODE = 137
"""Memory ran out: what a shell reports for a program that the kernel ended for it (128 + SIGKILL)."""
