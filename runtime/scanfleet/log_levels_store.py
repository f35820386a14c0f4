"""Where the rules of log levels are kept: one SSM parameter of the stage.

Parameter Store knows no conditional write. But each write gets the next version's number, and older versions
can be read. So whoever writes merges what was there, looks at the number it got, and where others wrote in
between merges their versions, too, and writes again: in the end the last version has everybody's rules.
"""

import random
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from scanfleet.contract import Parameter, parameter_name
from scanfleet.errors import Conflict, NotFound, Unavailable
from scanfleet.log_levels import Rule, dump, merge, parse

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

LIMIT_BYTES = 4096
"""Of a standard parameter. Source: Systems Manager user guide, "Managing parameter tiers"."""
MAX_WRITES = 20
MAX_LOOKS = 100
PAUSE_SECONDS = 0.05
"""Before another write at most, once more for each that was in vain."""


class LogLevelRules:
    """The rules of one stage. The client is made for the first look. clock: epoch seconds."""

    def __init__(
        self,
        make_client: Callable[[], "SSMClient"],
        stage: str,
        *,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._make_client = make_client
        self._clock = clock
        self._pause = pause
        self._stage = stage
        self._name = parameter_name(stage, Parameter.LOG_LEVELS)

    @cached_property
    def _ssm(self) -> "SSMClient":
        return self._make_client()

    def read(self) -> tuple[Rule, ...]:
        """Return the rules, expired ones included. Raises NotFound, Unavailable, ValueError."""
        return self._present()[0]

    def live(self) -> tuple[Rule, ...]:
        """Return the rules that hold now. Raises NotFound, Unavailable, ValueError."""
        return _holding(merge(self.read(), now=self._clock()))

    def put(self, changes: Sequence[Rule]) -> tuple[Rule, ...]:
        """Add these rules, each instead of an older one about the same; return all that hold then.

        What others write at the same time stays. Raises Conflict when the parameter cannot hold that much, or
        others write without end; NotFound, Unavailable, ValueError.
        """
        known, version = self._present()
        wanted = _after(known, changes)
        for turn in range(MAX_WRITES):
            merged = merge(known, wanted, now=self._clock())
            written = self._write(merged)
            if written == version + 1:
                return _holding(merged)
            # Others wrote versions that ours does not know, but has replaced.
            known = merge(merged, *self._versions(version + 1, written - 1), now=self._clock())
            self._pause(random.uniform(0.0, PAUSE_SECONDS * turn))  # or all would write in step
            present, version = self._present()
            together = merge(known, present, now=self._clock())
            if version > written and together == merge(present, now=self._clock()):
                return _holding(together)  # somebody after us has put all of it together
            known, version = together, max(version, written)
        raise Conflict(f"others keep changing {self._name}; try again")

    def _present(self) -> tuple[tuple[Rule, ...], int]:
        try:
            found = self._ssm.get_parameter(Name=self._name)["Parameter"]
        except self._ssm.exceptions.ParameterNotFound as error:
            raise NotFound(
                f"the SSM parameter {self._name} does not exist; the stage {self._stage} is not deployed in"
                " this account and region, or its data stack is older than this command"
            ) from error
        except (BotoCoreError, ClientError) as error:
            raise Unavailable(f"{self._name} cannot be read: {error}") from error
        return parse(found["Value"]), found["Version"]

    def _write(self, rules: Sequence[Rule]) -> int:
        document = dump(rules)
        if len(document) > LIMIT_BYTES:
            raise Conflict(
                f"{len(rules)} rules take {len(document)} bytes; the SSM parameter {self._name} holds"
                f" {LIMIT_BYTES}. Clear some that are no longer needed, or let them expire"
            )
        try:
            return self._ssm.put_parameter(Name=self._name, Value=document, Type="String", Overwrite=True)[
                "Version"
            ]
        except (BotoCoreError, ClientError) as error:
            raise Unavailable(f"{self._name} cannot be written: {error}") from error

    def _versions(self, first: int, last: int) -> list[tuple[Rule, ...]]:
        """Return what others wrote. A version that Parameter Store does not know yet is waited for."""
        for _ in range(MAX_LOOKS):
            try:
                pages = self._ssm.get_paginator("get_parameter_history").paginate(Name=self._name)
                found = {one["Version"]: one["Value"] for page in pages for one in page["Parameters"]}
            except (BotoCoreError, ClientError) as error:
                raise Unavailable(f"{self._name}'s history cannot be read: {error}") from error
            if all(version in found for version in range(first, last + 1)):
                return [parse(found[version]) for version in range(first, last + 1)]
        raise Unavailable(f"{self._name}'s history has no version {first} to {last}; look at the rules")


def _holding(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    return tuple(rule for rule in rules if rule.level)


def _after(known: Sequence[Rule], changes: Sequence[Rule]) -> list[Rule]:
    """Return the changes, later than what is known: another operator's clock may be ahead of ours."""
    at = {rule.target: rule.at for rule in known}
    return [
        Rule(
            rule.scope,
            rule.name,
            rule.level,
            rule.until,
            max(rule.at, at.get(rule.target, float("-inf")) + 0.001),
        )
        for rule in changes
    ]
