"""Builds the console's pages from runtime/scanfleet/api/console into runtime/scanfleet/api/pages/built.

    index.html                    the page; names the files below
    main-HASH.js.gz, ...          scripts and styles, compressed; their names change with their content
    licences.txt.gz               of every library that is in them

Run by `make setup`, with `--check` by `make check`: that only asks TypeScript whether the types fit. Uses the
standard library, and esbuild and TypeScript from node_modules. Equal sources make equal bytes.
"""

import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NODE = ROOT / ".venv" / "bin" / "node"
MODULES = ROOT / "node_modules"
SOURCE = ROOT / "runtime" / "scanfleet" / "api" / "console"
BUILT = ROOT / "runtime" / "scanfleet" / "api" / "pages" / "built"
TSC = MODULES / "typescript" / "bin" / "tsc"
# npm runs no install scripts here, so this is the small starter that looks for the program of this machine.
ESBUILD = MODULES / "esbuild" / "bin" / "esbuild"
BROWSERS = "chrome123,edge123,firefox128,safari17.5"
"""Those that know light-dark() and AbortSignal.any()."""
OPTIONS = (
    "--bundle",
    "--minify",
    f"--target={BROWSERS}",
    "--jsx=automatic",
    "--jsx-import-source=preact",
    "--legal-comments=none",
    "--entry-names=[name]-[hash]",
    "--chunk-names=[name]-[hash]",
    "--log-level=warning",
)
LICENCE_NAMES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE")


class BuildError(Exception):
    """The sources do not fit together; the message is the tool's."""


def check() -> None:
    """Raise BuildError when TypeScript objects."""
    _run([TSC, "--project", SOURCE / "tsconfig.json"])


def build(target: Path = BUILT) -> None:
    """Leave the pages in `target`, and nothing else. Raises BuildError."""
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as temporary:
        made = Path(temporary, "made")
        outputs = _bundle(made, Path(temporary))
        for path in sorted(made.iterdir()):
            _compress(path)
        _write_page(made, outputs)
        licences = made / "licences.txt"
        licences.write_text(_licences(outputs), encoding="utf-8")
        _compress(licences)
        _replace(made, target)


Outputs = dict[str, dict[str, object]]


def _bundle(made: Path, temporary: Path) -> Outputs:
    """Bundle twice: the theme's script runs on its own, before the page is drawn."""
    outputs: Outputs = {}
    for number, (entry, more) in enumerate(
        (("main.tsx", ("--format=esm", "--splitting")), ("theme.ts", ("--format=iife",)))
    ):
        facts = temporary / f"facts{number}.json"
        files = (f"--outdir={made}", f"--metafile={facts}")
        _run([ESBUILD, SOURCE / entry, *OPTIONS, *more, *files])
        outputs |= json.loads(facts.read_text())["outputs"]
    return outputs


def _write_page(made: Path, outputs: Outputs) -> None:
    page = (SOURCE / "index.html").read_text(encoding="utf-8")
    for name, output in outputs.items():
        entry = Path(str(output.get("entryPoint", ""))).stem
        if entry:
            page = page.replace("{" + entry + ".js}", Path(name).name)
        if "cssBundle" in output:
            page = page.replace("{console.css}", Path(str(output["cssBundle"])).name)
    if "{" in page:
        raise BuildError(f"index.html names a file that was not made:\n{page}")
    (made / "index.html").write_text(page, encoding="utf-8")


def _licences(outputs: Outputs) -> str:
    """Return the licence of each package that has a byte in the outputs."""
    parts = ["The console holds these libraries.\n"]
    for package in _packages(outputs):
        facts = json.loads((package / "package.json").read_text(encoding="utf-8"))
        text = next(package / name for name in LICENCE_NAMES if (package / name).is_file())
        title = f"{facts['name']} {facts['version']} ({facts['license']})"
        parts.append(f"{title}\n{'-' * len(title)}\n\n{text.read_text(encoding='utf-8').strip()}\n")
    return "\n\n".join(parts)


def _packages(outputs: Outputs) -> Iterable[Path]:
    found = set()
    for output in outputs.values():
        inputs = output["inputs"]
        assert isinstance(inputs, dict)
        for name in inputs:
            _, is_package, inside = name.rpartition("node_modules/")
            if is_package:
                words = inside.split("/")
                found.add("/".join(words[: 2 if inside.startswith("@") else 1]))
    return [MODULES / name for name in sorted(found)]


def _compress(path: Path) -> None:
    data = gzip.compress(path.read_bytes(), 9, mtime=0)
    path.with_name(f"{path.name}.gz").write_bytes(data)
    path.unlink()


def _replace(made: Path, target: Path) -> None:
    """Put the new files first and the page that names them last: a server may be reading them."""
    target.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in made.iterdir()}
    for name in sorted(names, key=lambda name: name == "index.html"):
        beside = target / f"{name}.new"
        shutil.copyfile(made / name, beside)
        beside.replace(target / name)
    for path in target.iterdir():
        if path.name not in names:
            path.unlink()


def _run(argv: Sequence[str | Path]) -> None:
    words = [str(NODE), *map(str, argv)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError((done.stdout + done.stderr).strip())


def main(arguments: Sequence[str]) -> int:
    """Build, or check; return the exit code."""
    if not set(arguments) <= {"--check"}:
        sys.stderr.write(f"console: got {' '.join(arguments)}; allowed: --check\n")
        return 2
    try:
        if arguments:
            check()
        else:
            build()
    except BuildError as error:
        sys.stderr.write(f"console: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
