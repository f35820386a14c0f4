"""What one attempt has done so far: for the heartbeat, which tells it on the way, and its record's end."""

from dataclasses import dataclass, field

from scanfleet.agent.machine_time import Share
from scanfleet.agent.output import ProgressBoard
from scanfleet.agent.usage_meter import UsageMeter
from scanfleet.attempts import Work


@dataclass(kw_only=True)
class Tally:
    """Kept by the attempt's thread; `usage` by the watch of its program."""

    board: ProgressBoard
    share: Share | None = None
    """None: nobody counts the machine's time."""
    usage: UsageMeter = field(default_factory=UsageMeter)
    bytes_downloaded: int = 0
    bytes_published: int = 0

    def close(self) -> Work:
        """Return what was done. The machine's time from here on is others'."""
        return Work(
            stage_seconds=self.board.finish(),
            bytes_downloaded=self.bytes_downloaded,
            bytes_published=self.bytes_published,
            usage=self.usage.usage(),
            idle_seconds=0.0 if self.share is None else self.share.end(),
        )
