"""`python -m scanfleet.reference_processor --iScanComplete <config.json>`."""

import io
import sys
import traceback
from pathlib import Path

from scanfleet.reference_processor.config import BadConfig, read_config
from scanfleet.reference_processor.exit_codes import (
    BAD_INPUT_EXIT_CODE,
    INTERNAL_EXIT_CODE,
    OUT_OF_MEMORY_EXIT_CODE,
    USAGE_EXIT_CODE,
)
from scanfleet.reference_processor.pipeline import run
from scanfleet.reference_processor.progress import Progress, fail_line
from scanfleet.reference_processor.readers import BadScan

COMMAND = "--iScanComplete"


def main(arguments: list[str]) -> int:
    """Run the program and return its exit code; what went wrong is told in a `scanfleet_fail` line."""
    if len(arguments) != 2 or arguments[0] != COMMAND:
        got = " ".join(arguments) or "nothing"
        code, text = USAGE_EXIT_CODE, fail_line(f"usage: {COMMAND} <config.json>; got {got}")
    else:
        code, text = _run(Path(arguments[1]))
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    return code


def _run(config_path: Path) -> tuple[int, str]:
    """Do the work and return the exit code and the last line to print."""
    try:
        report = run(read_config(config_path), config_path=config_path, progress=Progress())
    except BadConfig as error:
        code, reason = USAGE_EXIT_CODE, str(error)
    except BadScan as error:
        code, reason = BAD_INPUT_EXIT_CODE, str(error)
    except MemoryError:
        code, reason = OUT_OF_MEMORY_EXIT_CODE, "memory ran out"
    except OSError as error:
        code, reason = INTERNAL_EXIT_CODE, f"reading or writing failed: {error}"
    except Exception as error:  # noqa: BLE001 the last line of defence: the job's owner gets a sentence
        traceback.print_exc()
        code, reason = INTERNAL_EXIT_CODE, f"the program went wrong: {type(error).__name__}: {error}"
    else:
        return 0, f"{report['verdict']}: {report['summary']}"
    return code, fail_line(reason)


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names may hold what the console's code page lacks.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.exit(main(sys.argv[1:]))
