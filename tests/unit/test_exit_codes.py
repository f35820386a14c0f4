"""What exit codes mean: classes, sentences, and the page that people read."""

import re
import signal
from pathlib import Path

import pytest

from scanfleet.jobs import FailureClass
from scanfleet.processors.base import ProgramExit, explain_exit
from scanfleet.processors.exit_codes import NTSTATUS, SIGNALS, explain_code, is_ntstatus_error

PAGE = Path(__file__).parents[2] / "docs" / "exit-codes.md"
ROW = re.compile(
    r"^\| `(?P<code>[^`]+)` \| (?P<name>[^|]+) \| `(?P<failure_class>\w+)` \| (?P<sentence>.+) \|$"
)


@pytest.mark.parametrize(
    ("exit_code", "failure_class", "told"),
    [
        (0xC0000005, FailureClass.CRASH, "STATUS_ACCESS_VIOLATION, 0xC0000005"),
        (0xC0000135, FailureClass.CRASH, "DLL"),
        (0xC0000139, FailureClass.CRASH, "STATUS_ENTRYPOINT_NOT_FOUND"),
        (0xC0000142, FailureClass.CRASH, "STATUS_DLL_INIT_FAILED"),
        (0xC00000FD, FailureClass.CRASH, "stack"),
        (0xC0000374, FailureClass.CRASH, "STATUS_HEAP_CORRUPTION"),
        (0xC0000409, FailureClass.CRASH, "fail fast"),
        (0xC0000017, FailureClass.OUT_OF_MEMORY, "fewer slots"),
        (0xC000012D, FailureClass.OUT_OF_MEMORY, "page file"),
        (0xC000009A, FailureClass.OUT_OF_MEMORY, "fewer slots"),
        (0x8007000E, FailureClass.OUT_OF_MEMORY, "E_OUTOFMEMORY"),
        (0xC000013A, FailureClass.CRASH, "Ctrl-C"),
        (0xC0000094, FailureClass.CRASH, "divided by zero"),
        (0xC000001D, FailureClass.CRASH, "instruction"),
        (0xE06D7363, FailureClass.CRASH, "C++ exception"),
        (0xE0434352, FailureClass.CRASH, ".NET"),
        (0x40010004, FailureClass.CRASH, "from outside"),
        (0xC0DEDEAD, FailureClass.CRASH, "0xC0DEDEAD"),  # no table has it, but it is an NTSTATUS error
        (-signal.SIGKILL, FailureClass.OUT_OF_MEMORY, "SIGKILL, signal 9"),
        (-signal.SIGSEGV, FailureClass.CRASH, "SIGSEGV"),
        (-signal.SIGBUS, FailureClass.CRASH, "disk"),
        (-34, FailureClass.CRASH, "signal 34"),
        (1, FailureClass.PROGRAM_ERROR, "exit code 1"),
        (137, FailureClass.PROGRAM_ERROR, "exit code 137"),
        (0xFFFFFFFF, FailureClass.PROGRAM_ERROR, "exit code -1"),
        (0x80004005, FailureClass.PROGRAM_ERROR, "exit code -2147467259"),
    ],
)
def test_an_exit_code_becomes_a_class_and_a_sentence(exit_code, failure_class, told):
    failure = explain_exit(ProgramExit(exit_code))

    assert failure.failure_class is failure_class
    assert told in failure.reason
    assert failure.exit_code == exit_code


@pytest.mark.parametrize("code", sorted(NTSTATUS))
def test_windows_codes_mean_the_same_signed_and_unsigned(code):
    signed = code - 2**32 if code >= 2**31 else code

    assert explain_code(signed) == explain_code(code)
    assert NTSTATUS[code].sentence in explain_code(code).sentence


@pytest.mark.parametrize("number", sorted(SIGNALS))
def test_signals_have_the_names_of_this_system(number):
    assert signal.Signals(number).name == SIGNALS[number].name


def test_success_is_no_failure_whatever_the_program_said():
    assert explain_exit(ProgramExit(0, "never mind")) is None


def test_the_programs_own_reason_goes_first_and_the_class_stays():
    failure = explain_exit(ProgramExit(0xC0000005, "the third scan is damaged"))

    assert failure.reason == "the third scan is damaged"
    assert failure.failure_class is FailureClass.CRASH


@pytest.mark.parametrize("code", [0, 1, 0x40000000, 0x80000003, 0xD0000000, 0xFFFFFFFE])
def test_what_has_not_the_form_of_an_error_is_none(code):
    assert not is_ntstatus_error(code)


def test_the_page_has_every_code_and_no_other():
    known = {f"0x{code:08X}": meaning for code, meaning in NTSTATUS.items()}
    known |= {f"-{number}": meaning for number, meaning in SIGNALS.items()}
    told = {match["code"]: match for line in PAGE.read_text().splitlines() if (match := ROW.match(line))}

    assert {code: (row["name"], row["failure_class"], row["sentence"]) for code, row in told.items()} == {
        code: (meaning.name, meaning.failure_class.value, meaning.sentence) for code, meaning in known.items()
    }
