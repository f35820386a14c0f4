"""What a program's exit code means, where the operating system gave it and not the program.

Source: [MS-ERREF] "Windows Error Codes", 2.3 (NTSTATUS) and 2.1 (HRESULT); Microsoft C++ documentation for
the exceptions of compilers; signal(7). docs/exit-codes.md has the same table, for people.
"""

from dataclasses import dataclass

from scanfleet.jobs import FailureClass

LAST_SIGNAL = 64
"""Of Linux. Source: signal(7)."""


@dataclass(frozen=True)
class Meaning:
    """What one code means. sentence: what happened, and what whoever reads it can do."""

    name: str
    failure_class: FailureClass
    sentence: str


_CRASH, _MEMORY = FailureClass.CRASH, FailureClass.OUT_OF_MEMORY
_REPORT = "report it to the program's makers with this input"
_RELEASE = "publish a release that has everything the program needs"

NTSTATUS: dict[int, Meaning] = {
    0x40000015: Meaning(
        "STATUS_FATAL_APP_EXIT",
        _CRASH,
        f"it gave up (abort); its last lines may say why, otherwise {_REPORT}",
    ),
    0x40010004: Meaning(
        "DBG_TERMINATE_PROCESS",
        _CRASH,
        "it was ended from outside, as Windows does when it shuts down; see what else the machine did then",
    ),
    0x80000001: Meaning(
        "STATUS_GUARD_PAGE_VIOLATION", _CRASH, f"it touched memory that guards its stack; {_REPORT}"
    ),
    0x80000003: Meaning(
        "STATUS_BREAKPOINT",
        _CRASH,
        f"it stopped at a breakpoint or a failed check, as debug builds do; {_REPORT}",
    ),
    0x80000004: Meaning(
        "STATUS_SINGLE_STEP", _CRASH, "a debugger was on it; let no debugger attach to running jobs"
    ),
    0x8007000E: Meaning(
        "E_OUTOFMEMORY", _MEMORY, "Windows had no memory for it; use fewer slots or a larger machine"
    ),
    0xC0000005: Meaning(
        "STATUS_ACCESS_VIOLATION",
        _CRASH,
        f"it used memory that is not its own; if it happens again, {_REPORT}",
    ),
    0xC0000006: Meaning(
        "STATUS_IN_PAGE_ERROR",
        _CRASH,
        "a file that it had mapped could not be read: the disk failed or was full; replace the machine if it"
        " happens again there",
    ),
    0xC0000008: Meaning(
        "STATUS_INVALID_HANDLE", _CRASH, f"it used a file or object that was closed already; {_REPORT}"
    ),
    0xC0000017: Meaning(
        "STATUS_NO_MEMORY",
        _MEMORY,
        "Windows had no memory for it; use fewer slots, a larger machine or a larger page file",
    ),
    0xC000001D: Meaning(
        "STATUS_ILLEGAL_INSTRUCTION",
        _CRASH,
        "it used an instruction that this processor does not have, such as AVX-512; run it on the instance"
        " type that it was built for",
    ),
    0xC0000022: Meaning(
        "STATUS_ACCESS_DENIED",
        _CRASH,
        "the agent's account may not read a part of the program; check the release folder's permissions",
    ),
    0xC0000025: Meaning(
        "STATUS_NONCONTINUABLE_EXCEPTION", _CRASH, f"it went on after an error that allows no more; {_REPORT}"
    ),
    0xC000007B: Meaning(
        "STATUS_INVALID_IMAGE_FORMAT",
        _CRASH,
        f"a DLL is damaged, or for 32 bits where 64 are needed; {_RELEASE}, built for one of them",
    ),
    0xC000008C: Meaning("STATUS_ARRAY_BOUNDS_EXCEEDED", _CRASH, f"it left the bounds of an array; {_REPORT}"),
    0xC000008E: Meaning(
        "STATUS_FLOAT_DIVIDE_BY_ZERO",
        _CRASH,
        f"it divided by zero; look for an empty or flat scan in the input, otherwise {_REPORT}",
    ),
    0xC0000090: Meaning(
        "STATUS_FLOAT_INVALID_OPERATION",
        _CRASH,
        f"it computed with what is no number; look for damaged scans in the input, otherwise {_REPORT}",
    ),
    0xC0000091: Meaning(
        "STATUS_FLOAT_OVERFLOW",
        _CRASH,
        f"a number became too large; look for far outliers in the input, otherwise {_REPORT}",
    ),
    0xC0000094: Meaning(
        "STATUS_INTEGER_DIVIDE_BY_ZERO",
        _CRASH,
        f"it divided by zero; look for an empty scan in the input, otherwise {_REPORT}",
    ),
    0xC0000095: Meaning(
        "STATUS_INTEGER_OVERFLOW", _CRASH, f"a count became too large; try a smaller input, and {_REPORT}"
    ),
    0xC0000096: Meaning(
        "STATUS_PRIVILEGED_INSTRUCTION", _CRASH, f"it ran into what is no program code; {_REPORT}"
    ),
    0xC000009A: Meaning(
        "STATUS_INSUFFICIENT_RESOURCES",
        _MEMORY,
        "Windows ran out of memory or handles; use fewer slots, and see what else runs on the machine",
    ),
    0xC00000FD: Meaning(
        "STATUS_STACK_OVERFLOW", _CRASH, f"its stack was full, as by endless recursion; {_REPORT}"
    ),
    0xC000012D: Meaning(
        "STATUS_COMMITMENT_LIMIT",
        _MEMORY,
        "memory and page file together were full; use fewer slots, a larger machine or a larger page file",
    ),
    0xC0000135: Meaning(
        "STATUS_DLL_NOT_FOUND",
        _CRASH,
        f"a DLL that it needs is not on the machine (Visual C++ runtime, CUDA, its own); {_RELEASE}",
    ),
    0xC0000138: Meaning(
        "STATUS_ORDINAL_NOT_FOUND", _CRASH, f"a DLL is of another version than it needs; {_RELEASE}"
    ),
    0xC0000139: Meaning(
        "STATUS_ENTRYPOINT_NOT_FOUND", _CRASH, f"a DLL is of another version than it needs; {_RELEASE}"
    ),
    0xC000013A: Meaning(
        "STATUS_CONTROL_C_EXIT",
        _CRASH,
        "something other than the agent told it to stop (Ctrl-C, a log-off, a shutdown); see what else the"
        " machine did then",
    ),
    0xC0000142: Meaning(
        "STATUS_DLL_INIT_FAILED",
        _CRASH,
        "a DLL refused to start: often the GPU's driver, a shutdown, or too many programs in session 0;"
        " replace the machine if it happens again there",
    ),
    0xC0000374: Meaning(
        "STATUS_HEAP_CORRUPTION", _CRASH, f"it damaged its own memory some time before; {_REPORT}"
    ),
    0xC0000409: Meaning(
        "STATUS_STACK_BUFFER_OVERRUN",
        _CRASH,
        "it ended itself at once (fail fast): an error that it does not handle, or a damaged stack; its last"
        f" lines may say why, otherwise {_REPORT}",
    ),
    0xC0000417: Meaning(
        "STATUS_INVALID_CRUNTIME_PARAMETER",
        _CRASH,
        f"it called the C library with something that is not allowed; {_REPORT}",
    ),
    0xC0000420: Meaning("STATUS_ASSERTION_FAILURE", _CRASH, f"one of its own checks failed; {_REPORT}"),
    0xC0000602: Meaning(
        "STATUS_FAIL_FAST_EXCEPTION",
        _CRASH,
        f"it ended itself at once (fail fast) at an error that it does not handle; {_REPORT}",
    ),
    0xC06D007E: Meaning(
        "Visual C++: module not found",
        _CRASH,
        f"a DLL that it loads late is not on the machine (CUDA's, for one); {_RELEASE}",
    ),
    0xC06D007F: Meaning(
        "Visual C++: procedure not found",
        _CRASH,
        f"a DLL that it loads late is of another version than it needs; {_RELEASE}",
    ),
    0xE0434352: Meaning(
        ".NET exception",
        _CRASH,
        "a .NET exception was not handled; the event log, source .NET Runtime, has its text",
    ),
    0xE06D7363: Meaning(
        "C++ exception",
        _CRASH,
        "a C++ exception was not handled, as one about a missing file or memory; its last lines may say more",
    ),
}
"""Windows' codes, unsigned. CUDA has none: a program that checks CUDA's errors chooses its own code."""

SIGNALS: dict[int, Meaning] = {
    1: Meaning(
        "SIGHUP", _CRASH, "its terminal or parent went away; start nothing in it that needs a terminal"
    ),
    2: Meaning("SIGINT", _CRASH, "something other than the agent told it to stop; see who is on the machine"),
    3: Meaning(
        "SIGQUIT", _CRASH, "something other than the agent told it to stop; see who is on the machine"
    ),
    4: Meaning(
        "SIGILL",
        _CRASH,
        "it used an instruction that this processor does not have; run it on the instance type that it was"
        " built for",
    ),
    5: Meaning("SIGTRAP", _CRASH, f"it stopped at a breakpoint or a failed check; {_REPORT}"),
    6: Meaning("SIGABRT", _CRASH, f"it gave up (abort); its last lines may say why, otherwise {_REPORT}"),
    7: Meaning(
        "SIGBUS",
        _CRASH,
        "a file that it had mapped shrank or could not be read, as on a full disk; free the scratch disk",
    ),
    8: Meaning(
        "SIGFPE", _CRASH, f"it divided by zero; look for an empty scan in the input, otherwise {_REPORT}"
    ),
    9: Meaning(
        "SIGKILL",
        _MEMORY,
        "the operating system killed it, most likely for lack of memory; use fewer slots or a larger machine",
    ),
    11: Meaning("SIGSEGV", _CRASH, f"it used memory that is not its own; if it happens again, {_REPORT}"),
    13: Meaning("SIGPIPE", _CRASH, f"it wrote to a program of its own that had ended; {_REPORT}"),
    15: Meaning(
        "SIGTERM", _CRASH, "something other than the agent told it to stop; see who is on the machine"
    ),
    24: Meaning("SIGXCPU", _CRASH, "a limit of CPU time ended it; raise the limit of the agent's service"),
    25: Meaning("SIGXFSZ", _CRASH, "a limit of file size ended it; raise the limit of the agent's service"),
    31: Meaning("SIGSYS", _CRASH, "it made a system call that the machine forbids; run it elsewhere"),
}
"""Linux' signals on x86 and ARM. The agent's own signals never get here: it knows why it stops a program."""


def explain_code(exit_code: int) -> Meaning | None:
    """Return what the operating system means by the code, or None when the program chose it itself.

    exit_code: negative is a POSIX signal; Windows' codes may come signed or unsigned. The sentence is whole,
    and names the code.
    """
    if -LAST_SIGNAL <= exit_code < 0:
        known = SIGNALS.get(-exit_code)
        shown = f"signal {-exit_code}"
        unknown = Meaning(shown, _CRASH, f"it was ended from outside or by itself; {_REPORT}")
    else:
        code = exit_code & 0xFFFFFFFF
        known = NTSTATUS.get(code)
        if known is None and not is_ntstatus_error(code):
            return None
        shown = f"0x{code:08X}"
        unknown = Meaning("NTSTATUS", _CRASH, f"[MS-ERREF] 2.3.1 has the code's meaning; {_REPORT}")
    meaning = known or unknown
    return Meaning(
        meaning.name,
        meaning.failure_class,
        f"the program was ended ({meaning.name}, {shown}): {meaning.sentence}",
    )


def is_ntstatus_error(code: int) -> bool:
    """Say whether the unsigned code has the form of an NTSTATUS error.

    The severity (top two bits) is 3 and the reserved bit 28 is 0: so 0xFFFFFFFF, a program's own -1, is none.
    Source: [MS-ERREF] 2.3.
    """
    return code >> 30 == 3 and not code >> 28 & 1
