"""Which S3 places a caller may name: the deployment's, its tenant's, less other callers' uploads."""

from urllib.parse import quote

from scanfleet.api.identity import Caller
from scanfleet.errors import InvalidRequest
from scanfleet.objects import AllowedPrefixes, S3Uri
from scanfleet.settings import ApiSettings


class Places:
    """The places of one caller."""

    def __init__(self, settings: ApiSettings, caller: Caller) -> None:
        self._allowed = AllowedPrefixes((*settings.allowed_prefixes, *caller.tenant_prefixes))
        bucket, _, key = settings.uploads_uri.removeprefix("s3://").partition("/")
        self._uploads_root = S3Uri(bucket, key if not key or key.endswith("/") else key + "/")
        # Quoted, so that an owner whose name has a slash cannot stand in another's folder.
        self.own = self._uploads_root.child(quote(caller.owner, safe="@") + "/")
        self._caller = caller

    def folder(self, text: object, *, field: str) -> S3Uri:
        """Return the folder that a request names. Raises InvalidRequest when it may not be used."""
        uri = S3Uri.parse_folder(text, field=field)
        self._require(uri, field=field)
        return uri

    def file(self, text: str, *, field: str, for_upload: bool) -> S3Uri:
        """Return the object that a request names: a path under the caller's own folder, or an S3 URI.

        Uploads go to the caller's own folder only. Raises InvalidRequest.
        """
        allowed = "a path under your own uploads folder, or s3://bucket/folder/file"
        if not text or text.endswith("/"):
            raise InvalidRequest.of(field, "names no file", value=text, allowed=allowed)
        whole = text if "://" in text else f"{self.own}{text}"
        try:
            folder = S3Uri.parse_folder(whole, field=field)
        except InvalidRequest as error:
            raise InvalidRequest.of(field, error.errors[0].message, value=text, allowed=allowed) from error
        uri = S3Uri(folder.bucket, folder.key.removesuffix("/"))
        if for_upload and not uri.is_inside(self.own):
            raise InvalidRequest.of(
                field, "uploads go to your own folder only", value=text, allowed=f"under {self.own}"
            )
        if not uri.is_inside(self.own):
            self._require(uri, field=field)
        return uri

    def _require(self, uri: S3Uri, *, field: str) -> None:
        self._allowed.require(uri, field=field)
        touches_uploads = uri.is_inside(self._uploads_root) or self._uploads_root.is_inside(uri)
        if touches_uploads and not uri.is_inside(self.own) and not self._caller.is_operator:
            raise InvalidRequest.of(
                field, "belongs to another caller", value=uri, allowed=f"under {self.own}"
            )
