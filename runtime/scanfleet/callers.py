"""Who calls, for whatever answers: the API, and the function of live events, which loads no framework."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Caller:
    """An authenticated caller. `owner` is 1 to 128 characters; it names the caller's jobs and uploads.

    tenant_prefixes: s3:// folders that this caller may use, and no caller of another tenant.
    """

    owner: str
    is_operator: bool
    tenant_prefixes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # The owner becomes a folder name in S3 and a table key.
        if not 1 <= len(self.owner) <= 128 or not self.owner.isprintable() or set(self.owner) <= {"."}:
            raise ValueError(f"not an owner's name: {self.owner!r}")

    def may_see(self, owner: str) -> bool:
        """Say whether this caller may see what `owner` owns."""
        return self.is_operator or owner == self.owner
