"""What programs print, whatever it is: read without an error, and never further than 0 to 100 percent."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanfleet.agent.output import MAX_LINE_BYTES, ProgramLog, ProgressBoard, pump
from scanfleet.processors.base import Progress, read_protocol_line
from scanfleet.processors.medit_autotest import MeditAutoTest

NUMBERS = st.one_of(
    st.floats().map(repr),
    st.integers().map(str),
    st.text("0123456789.eE+-_ infa٤²½", max_size=12),
    st.sampled_from(["nan", "1e999", "0x10", "1_0", "9" * 5000, "-0.0", "100.00000001"]),
)
LINES = st.one_of(
    st.text(max_size=60),
    st.builds("scanfleet_progress: {}".format, NUMBERS),
    st.builds("scanfleet_stage: {}".format, st.text(max_size=70)),
    st.builds("scanfleet_fail: {}".format, st.text(max_size=1200)),
    st.builds("step {}%".format, NUMBERS),
    st.builds("step {} %  ".format, NUMBERS),
)
READERS = {"protocol": read_protocol_line, "medit": MeditAutoTest(releases=None).read_line}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@given(line=LINES)
def test_a_line_tells_a_percentage_within_bounds_or_nothing(reader, line):
    told = reader(line)

    if told is not None:
        assert told.percent is None or 0 <= told.percent <= 100
        assert told.stage is None or 1 <= len(told.stage) <= 64
        assert told.failure_reason is None or 1 <= len(told.failure_reason) <= 1000
        assert told != Progress()


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@given(lines=st.lists(LINES, max_size=20))
def test_progress_only_grows_and_stays_within_bounds(reader, lines):
    now = iter(range(10_000))
    board = ProgressBoard(lambda: float(next(now)))
    before = 0.0
    for line in lines:
        told = reader(line)
        if told is not None:
            board.update(told)
        percent, _ = board.current()
        assert before <= percent <= 100
        before = percent
    assert all(seconds >= 0 for seconds in board.finish().values())


class Chunks(io.RawIOBase):
    """A pipe that gives its bytes in the pieces in which they were written."""

    def __init__(self, chunks):
        self._chunks = [chunk for chunk in chunks if chunk]

    def read(self, size=-1):
        return self._chunks.pop(0) if self._chunks else b""


OUTPUT = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [b"\r", b"\n", b"\r\n", b"\0", b"\xff\xfe", "é".encode()[:1], b"x" * (MAX_LINE_BYTES + 5)]
        ),
    ),
    max_size=12,
)


@given(chunks=OUTPUT)
def test_any_output_in_any_pieces_is_the_same_lines(tmp_path_factory, chunks):
    whole, cut = ([], [])
    folder = tmp_path_factory.mktemp("logs")
    for name, pieces, lines in (("whole", [b"".join(chunks)], whole), ("cut", chunks, cut)):
        log = ProgramLog(folder / name)
        pump(Chunks(pieces), log, lines.append)
        log.close()

    assert "".join(whole) == "".join(cut)
    assert b"\0" not in Path(folder / "cut").read_bytes()
    assert all(len(line.encode()) <= 3 * MAX_LINE_BYTES for line in cut)
