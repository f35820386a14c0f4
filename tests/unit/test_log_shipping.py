"""What a program printed on its way to S3, and an attempt's end where S3 does not answer."""

import logging
import threading
from datetime import timedelta

import pytest

from scanfleet.agent.log_shipping import LogShipper
from scanfleet.agent.output import ProgramLog


class Shelf:
    """Stores objects; a closed one does not answer before it is opened."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        self.is_open = threading.Event()

    def put_bytes(self, uri, data, *, content_type=None):
        self.is_open.wait()
        self.stored.append(data)


@pytest.fixture
def shelf():
    shelf = Shelf()
    yield shelf
    shelf.is_open.set()


@pytest.fixture
def log(tmp_path):
    log = ProgramLog(tmp_path / "program.log")
    yield log
    log.close()


def shipper(shelf: Shelf, log: ProgramLog, *, rest_within: timedelta) -> LogShipper:
    return LogShipper(shelf, bucket="b", job_id="j", attempt=1, source=log, rest_within=rest_within)


def test_the_rest_is_stored_at_the_end(shelf, log):
    shelf.is_open.set()
    ships = shipper(shelf, log, rest_within=timedelta(minutes=1))
    ships.start()
    log.write(b"done")

    ships.stop()

    assert shelf.stored == [b"done\n"]


def test_a_store_that_does_not_answer_holds_no_attempt_up(shelf, log, caplog):
    caplog.set_level(logging.WARNING)
    ships = shipper(shelf, log, rest_within=timedelta(seconds=0.2))
    ships.start()
    log.write(b"done")
    stopping = threading.Thread(target=ships.stop, daemon=True)
    stopping.start()

    stopping.join(30)

    assert not stopping.is_alive()
    assert [record.action for record in caplog.records] == ["log_not_shipped"]
