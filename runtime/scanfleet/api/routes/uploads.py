"""`/uploads` and `/presign`: files in and out without AWS credentials."""

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from scanfleet.api.identity import CallerDep
from scanfleet.api.places import Places
from scanfleet.api.problems import documented
from scanfleet.api.schemas import Presigned, Uploads
from scanfleet.api.services import ServicesDep, SettingsDep
from scanfleet.errors import InvalidRequest

router = APIRouter(tags=["files"])


@router.get("/uploads", summary="Where the caller's uploads go")
def get_uploads(settings: SettingsDep, caller: CallerDep) -> Uploads:
    """Return the caller's own folder; jobs may name it, and what is under it, as source and target."""
    return Uploads(
        uri=str(Places(settings, caller).own),
        max_file_bytes=settings.max_upload_bytes,
        expires_in_seconds=settings.presign_seconds,
    )


@router.get("/presign", responses=documented(422), summary="A time-limited URL of one file")
def presign(
    *,
    services: ServicesDep,
    settings: SettingsDep,
    caller: CallerDep,
    file: Annotated[
        str,
        Query(
            description="A path under the caller's own folder; for downloads also an allowed S3 URI.",
            examples=["case-7/scan1.ply"],
        ),
    ],
    mode: Annotated[Literal["upload", "download"], Query()],
    size_bytes: Annotated[int | None, Query(ge=0, description="Required for uploads, and signed.")] = None,
    content_type: Annotated[
        str | None, Query(pattern=r"^[\w.+-]{1,64}/[\w.+-]{1,64}(; ?[\w-]+=[\w.-]+)?$", description="Signed.")
    ] = None,
    attachment: Annotated[bool, Query(description="Of downloads: browsers save the file.")] = False,
) -> Presigned:
    """Return a URL that uploads exactly `size_bytes` bytes, or downloads, and needs no credentials.

    Whether the file exists is not looked up: a download of a missing one answers 404 at its URL.
    """
    is_upload = mode == "upload"
    uri = Places(settings, caller).file(file, field="file", for_upload=is_upload)
    if is_upload:
        _check_size(size_bytes, settings.max_upload_bytes)
    signed = services.objects.presign(
        uri,
        upload=is_upload,
        expires=timedelta(seconds=settings.presign_seconds),
        size_bytes=size_bytes if is_upload else None,
        content_type=content_type if is_upload else None,
        attachment=attachment,
    )
    return Presigned(
        url=signed.url,
        method=signed.method,
        expires_in_seconds=settings.presign_seconds,
        headers=signed.headers,
        uri=str(uri),
    )


def _check_size(size_bytes: int | None, limit: int) -> None:
    allowed = f"0 to {limit}"
    if size_bytes is None:
        raise InvalidRequest.of(
            "size_bytes", "is missing; uploads need the file's exact size", allowed=allowed
        )
    if size_bytes > limit:
        raise InvalidRequest.of("size_bytes", "is too large", value=size_bytes, allowed=allowed)
