"""What is wrong with a PowerShell script, found by its syntax tree: nothing here can run one.

    syntax      the parser had to guess
    stop        the script does not begin with $ErrorActionPreference = 'Stop'
    exit code   a program runs and nobody looks at its exit code: errors of programs stop no script
    text as code   Invoke-Expression, cmd /c and the like: what a value holds would be run
    word        a value is glued to a bare word, so where it ends is a guess

The grammar is stricter than PowerShell in places: a parameter whose name ends in digits, such as -Sha256, is
none to it.
"""

import re
from collections.abc import Iterator
from functools import cache

import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

PROGRAMS = re.compile(
    r".*\.(exe|com|cmd|bat)|python|pip|sc|msiexec|reg|net|icacls|robocopy|diskpart|bcdedit|nvidia-smi|aws|wusa"
    r"|dism|powercfg|fsutil|w32tm|takeown|schtasks|shutdown|powershell|pwsh",
    re.IGNORECASE,
)
TEXT_AS_CODE = re.compile(r"invoke-expression|iex|cmd(\.exe)?|invoke-webscript", re.IGNORECASE)
STATEMENTS = ("statement_list", "script_block_body", "program")


def findings(script: str, *, is_whole: bool = True) -> list[str]:
    """Return what is wrong, as "line: rule: text". is_whole: not a file of functions that others include."""
    root = _parse(script)
    found = [*_syntax(root), *_exit_codes(root), *_text_as_code(root), *_words(root)]
    if is_whole:
        found += _stop(root)
    return [f"{node.start_point[0] + 1}: {rule}: {_text(node).strip()[:80]}" for node, rule in found]


def variables(script: str) -> tuple[set[str], set[str]]:
    """Return the names that a script assigns or declares, and those that it reads; lower case, without $."""
    assigned: set[str] = set()
    read: set[str] = set()
    for node in _walk(_parse(script)):
        if node.type == "variable":
            name = _text(node).lstrip("$@").strip("{}").lower().removeprefix("script:")
            (assigned if _is_declared(node) else read).add(name)
        elif node.type == "expandable_string_literal":
            read |= {name.lower() for name in re.findall(r"\$\{?(\w+)", _text(node))}
    return assigned, read


def functions(script: str) -> set[str]:
    """Return the functions that a script defines."""
    defined = (node for node in _walk(_parse(script)) if node.type == "function_statement")
    return {_text(_child(node, "function_name")) for node in defined}


def commands(script: str) -> list[str]:
    """Return the names of the commands that a script calls, in order."""
    return [name for node in _walk(_parse(script)) if node.type == "command" and (name := _name(node))]


# --- The rules ---------------------------------------------------------------------------------------------


def _syntax(root: Node) -> Iterator[tuple[Node, str]]:
    for node in _walk(root):
        if node.is_error or node.is_missing:
            yield (node if _text(node).strip() else node.parent or node), "syntax"


def _stop(root: Node) -> Iterator[tuple[Node, str]]:
    first = next((n for n in _walk(root) if n.type in ("pipeline", "function_statement")), root)
    if not re.fullmatch(r"\$ErrorActionPreference\s*=\s*'Stop'", _text(first).strip()):
        yield first, "stop"


def _exit_codes(root: Node) -> Iterator[tuple[Node, str]]:
    script_blocks = set(re.findall(r"\[scriptblock\]\s*(\$\w+)", _text(root), re.IGNORECASE))
    for node in _walk(root):
        if node.type == "command" and _runs_program(node, script_blocks):
            wanted = "$LASTEXITCODE"
        elif node.type == "command" and _name(node).lower() == "start-process":
            wanted = "ExitCode"
        else:
            continue
        if wanted not in _text(_following(node)):
            yield node, "exit code"


def _text_as_code(root: Node) -> Iterator[tuple[Node, str]]:
    for node in _walk(root):
        if node.type == "command" and TEXT_AS_CODE.fullmatch(_name(node)):
            yield node, "text as code"


def _words(root: Node) -> Iterator[tuple[Node, str]]:
    for node in _walk(root):
        if node.type == "generic_token" and "$" in _text(node):
            yield node, "word"


# --- The tree ----------------------------------------------------------------------------------------------


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_powershell.language()))


def _parse(script: str) -> Node:
    return _parser().parse(script.encode()).root_node


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _text(node: Node | None) -> str:
    return node.text.decode() if node is not None and node.text is not None else ""


def _child(node: Node, kind: str) -> Node | None:
    return next((child for child in node.children if child.type == kind), None)


def _name(command: Node) -> str:
    """A command's name without folder; "" for what is called by a variable."""
    named = _child(command, "command_name") or _child(command, "command_name_expr")
    text = _text(named).strip("'\"")
    return "" if text.startswith(("$", "{", "(")) else re.split(r"[\\/]", text)[-1]


def _runs_program(command: Node, script_blocks: set[str]) -> bool:
    if name := _name(command):
        return bool(PROGRAMS.fullmatch(name))
    called = _text(_child(command, "command_name_expr"))
    # `& $x` with nothing behind it runs a block of ours; a program takes arguments.
    takes_arguments = bool(_text(_child(command, "command_elements")).strip())
    return called.startswith("$") and called not in script_blocks and takes_arguments


def _following(node: Node) -> Node | None:
    """The statement after the one that holds the node."""
    while node.parent is not None and node.parent.type not in STATEMENTS:
        node = node.parent
    follower = node.next_named_sibling
    while follower is not None and follower.type == "comment":
        follower = follower.next_named_sibling
    return follower


def _is_declared(variable: Node) -> bool:
    """Whether a variable's value is set here: a parameter, a loop's variable, or left of an equals sign."""
    node: Node | None = variable
    while node is not None and node.parent is not None:
        parent = node.parent
        if parent.type == "script_parameter":
            return _child(parent, "variable") == node
        if parent.type == "foreach_statement":
            return node.type == "variable"
        if parent.type == "left_assignment_expression":
            return "." not in _text(parent) and "[" not in _text(parent)
        if parent.type in ("command", "pipeline", *STATEMENTS):
            return False
        node = parent
    return False
