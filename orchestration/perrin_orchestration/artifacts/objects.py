"""A bucket in S3, or in anything that speaks its protocol: a put is atomic, and nothing can be renamed.

Address and credentials are those that every tool of AWS reads: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_PROFILE.

Nothing is cached, and what sends has its own end: before a server that takes a connection and then says nothing, the
client would wait for ever for leave to send the body.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

from perrin.errors import NotInstalled, PerrinError, StorageAway, StorageError
from perrin_orchestration.artifacts.place import ASIDE, Item, Tell, nobody

__all__ = ["Objects"]

T = TypeVar("T")

CALL_SECONDS = 10.0
"""A call ends after this, well within the usual lease; one that carries much has more time, at `SLOWEST`."""

SLOWEST = 1 << 20
"""Bytes a second that an upload makes at least."""

AWAY_SECONDS = 5.0
"""For so long after it did not answer, a bucket is not asked for what can wait or be done without."""

BODIES = 3
"""How often an object is read whose body breaks off. The client tries again by itself only until the body begins."""

PART = 8 << 20
"""Bytes of a part, of what is too large for one put. Each goes after the other, and has its own end."""

CONFIG = {"connect_timeout": 3, "read_timeout": 4, "retries": {"mode": "standard", "max_attempts": 3}}
"""A server that takes a connection and says nothing is given up within the usual lease."""


class Objects:
    """Keys are those of ``bucket`` below ``prefix``.

    Raises:
        NotInstalled: the ``s3`` extra is missing.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        try:
            import s3fs
        except ModuleNotFoundError:
            raise NotInstalled("artifacts on S3", "s3") from None
        self._fs = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True, config_kwargs=CONFIG)
        self._fs.retries = 1  # the client below tries again by itself
        self._bucket, self._prefix = bucket, prefix
        self._silent_at: float | None = None

    # --- is it there --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Ask for the bucket."""
        with self._refusals("be used", bucket=True):
            self._call("head_bucket")

    def check_answers(self) -> None:
        """Ask for the bucket if it did not answer the last time, but not again at once."""
        if self._silent_at is not None:
            if time.monotonic() - self._silent_at < AWAY_SECONDS:
                raise StorageAway(f"the artifact store's bucket {self._bucket} did not answer a moment ago")
            self.check()

    def free(self) -> int | None:
        """Nobody knows."""
        return None

    # --- whole things -------------------------------------------------------------------------------------------------

    def draft(self, name: str, key: str, data: bytes, *, durable: bool = True, tell: Tell = nobody) -> None:
        """Put the object where it is to lie."""
        with self._refusals("be written to"):
            if len(data) <= PART:
                self._call("put_object", Key=self._prefix + key, Body=data, seconds=_seconds(len(data)))
            else:
                self._put_parts(key, data, tell)

    def _put_parts(self, key: str, data: bytes, tell: Tell) -> None:
        """Nobody sees the object before its last part is there."""
        whole: dict[str, Any] = {"Key": self._prefix + key}
        whole["UploadId"] = self._call("create_multipart_upload", **whole)["UploadId"]
        parts = []
        try:
            for number, start in enumerate(range(0, len(data), PART), 1):
                body = data[start : start + PART]
                done = self._call("upload_part", **whole, PartNumber=number, Body=body, seconds=_seconds(PART))
                parts.append({"PartNumber": number, "ETag": done["ETag"]})
                tell()
            finished = {"Parts": parts}
            seconds = _seconds(len(data))
            self._call("complete_multipart_upload", **whole, MultipartUpload=finished, seconds=seconds)
        except BaseException:
            with contextlib.suppress(Exception):
                self._call("abort_multipart_upload", **whole)
            raise

    def finish(self, name: str, key: str) -> None:
        """It lies there already."""

    def drop_drafts(self, start: str) -> None:
        """There are none."""

    def read(self, key: str, tell: Tell = nobody) -> bytes | None:
        """The object, or what `retire` kept of it."""
        data = self._get(key, tell)
        return self._get(_aside(key), tell) if data is None and key.startswith("blobs/") else data

    def _get(self, key: str, tell: Tell) -> bytes | None:
        async def body() -> bytes:
            answer = await self._fs._call_s3("get_object", Bucket=self._bucket, Key=self._prefix + key)
            parts = []
            async with answer["Body"] as stream:
                while part := await stream.read(PART):
                    parts.append(part)
                    tell()
            return b"".join(parts)

        with self._refusals("be read"):
            for attempt in range(1, BODIES + 1):
                try:
                    return self._await(body, seconds=None)
                except FileNotFoundError as error:
                    if _code(error) == "NoSuchBucket":
                        raise
                    break
                except Exception as error:
                    if attempt == BODIES or not _broken_off(error):
                        raise
                    time.sleep(0.1 * 2**attempt)
        return None

    def remove(self, keys: Sequence[str]) -> None:
        """Delete objects."""
        with self._refusals("be written to"):
            for key in keys:
                self._call("delete_object", Key=self._prefix + key)

    def retire(self, key: str, before: float) -> bool:
        """Copy it aside, then delete it: whoever wrote the same bytes a moment ago still finds them there.

        The copy is young, so it stays until long after such a writer has named it.
        """
        with self._refusals("be written to"):
            try:
                if self._call("head_object", Key=self._prefix + key)["LastModified"].timestamp() >= before:
                    return False
                self._copy(key, _aside(key))
            except FileNotFoundError:
                return False
            self._call("delete_object", Key=self._prefix + key)
        return True

    def put_back(self, key: str) -> None:
        """Copy it to where it was."""
        with self._refusals("be written to"), contextlib.suppress(FileNotFoundError):
            self._copy(_aside(key), key)

    def _copy(self, source: str, target: str) -> None:
        """New metadata, so that a copy is as young as it is."""
        source = f"{self._bucket}/{self._prefix}{source}"
        self._call("copy_object", Key=self._prefix + target, CopySource=source, MetadataDirective="REPLACE")

    # --- lists --------------------------------------------------------------------------------------------------------

    def page(self, start: str, after: str = "", limit: int = 1000) -> list[Item]:
        """Objects in the order of their keys."""
        from_key: dict[str, Any] = {"StartAfter": self._prefix + after} if after else {}
        with self._refusals("be read"):
            found = self._call("list_objects_v2", Prefix=self._prefix + start, MaxKeys=min(limit, 1000), **from_key)
        return [
            Item(item["Key"].removeprefix(self._prefix), item["LastModified"].timestamp())
            for item in found.get("Contents", ())
        ]

    def tidy(self, before: float) -> int:
        """Abort uploads in parts whose writer is gone: nobody sees them, and everybody pays for them."""
        gone = 0
        with self._refusals("be written to"):
            try:
                found = self._call("list_multipart_uploads", Prefix=self._prefix)
                for upload in found.get("Uploads", ()):
                    if upload["Initiated"].timestamp() < before:
                        self._call("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])
                        gone += 1
            except FileNotFoundError as error:
                if _code(error) != "NoSuchUpload":  # aborted by somebody else; and some servers' word for none
                    raise
        return gone

    # ------------------------------------------------------------------------------------------------------------------

    def _call(self, method: str, *, seconds: float | None = None, **values: Any) -> Any:
        def work() -> Awaitable[Any]:
            return self._fs._call_s3(method, Bucket=self._bucket, **values)  # type: ignore[no-any-return]

        return self._await(work, seconds=seconds or CALL_SECONDS)

    def _await(self, work: Callable[[], Awaitable[T]], *, seconds: float | None) -> T:
        """``work`` on the file system's own loop. Reading ends by itself when nothing comes."""
        from fsspec.asyn import sync

        result: T = sync(self._fs.loop, work, timeout=seconds)
        self._silent_at = None
        return result

    @contextlib.contextmanager
    def _refusals(self, what: str, bucket: bool = False) -> Iterator[None]:
        """What S3 and its client say when they refuse, in our words."""
        name = f"the artifact store's bucket {self._bucket}"
        try:
            yield
        except PerrinError:
            raise
        except FileNotFoundError as error:
            if not bucket and _code(error) != "NoSuchBucket":
                raise
            raise StorageError(f"{name} does not exist: make it, or correct PERRIN_ARTIFACTS_URL") from error
        except PermissionError as error:
            keys = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their rights"
            raise StorageError(f"{name} may not {what} ({_line(error)}): {keys}") from error
        except Exception as error:
            if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
                raise StorageError(f"{name} may not {what}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
            if not _silence(error):
                raise StorageError(f"{name} cannot {what}: {_line(error)}") from error
            self._silent_at = time.monotonic()
            raise StorageAway(f"{name} does not answer: {_line(error)}") from error


def _seconds(size: int) -> float:
    return CALL_SECONDS + size / SLOWEST


def _aside(key: str) -> str:
    return ASIDE + key.rpartition("/")[2]


def _code(error: BaseException) -> str:
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _broken_off(error: Exception) -> bool:
    """Whether the connection was lost while the body came."""
    from aiohttp import ClientPayloadError
    from botocore.exceptions import ResponseStreamingError

    return isinstance(error, ClientPayloadError | ResponseStreamingError)


def _silence(error: Exception) -> bool:
    """Whether nobody answered, or whoever did is in trouble and may get over it."""
    from aiohttp import ClientError
    from botocore.exceptions import ConnectionError, HTTPClientError, ResponseStreamingError

    if isinstance(error, TimeoutError | HTTPClientError | ConnectionError | ClientError | ResponseStreamingError):
        return True
    status = (getattr(error.__cause__, "response", None) or {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status) >= 500


def _line(error: Exception) -> str:
    text = " ".join(str(error.__cause__ or error).split())
    return (text or f"no answer within {CALL_SECONDS:.0f} s")[:200]
