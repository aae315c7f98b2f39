"""Files that come in: read up to a limit, told by their bytes, kept under their hash."""

from __future__ import annotations

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response

from perrin.errors import InvalidInput
from perrin.media import sniff
from perrin.wire import UploadRecord
from perrin_orchestration.gateway.answers import drain
from perrin_orchestration.gateway.context import Context, Ctx, Me
from perrin_orchestration.gateway.records import upload_record
from perrin_orchestration.store import User

__all__ = ["PATH", "router"]

PATH = "/v1/uploads"

router = APIRouter()

_BODY = {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


@router.post(PATH, status_code=201, openapi_extra={"requestBody": _BODY})
async def upload(context: Ctx, me: Me, request: Request, response: Response) -> UploadRecord:
    """Bring a file, for jobs to take in. The same bytes again are the same upload."""
    data = await _body(request, context.settings.max_upload_mb)
    if not data:
        raise InvalidInput("file", data, "a file with something in it")
    record = await run_sync(_keep, context, me, data)
    response.headers["location"] = f"/v1/artifacts/{record.id}"
    return record


def _keep(context: Context, me: User, data: bytes) -> UploadRecord:
    kept = context.artifacts.keep(data)
    return upload_record(context.store.keeper.upload(me.id, sniff(data), kept.size, kept.sha256))


async def _body(request: Request, limit_mb: int) -> bytes:
    """The body, read no further than the limit, and only once it is known who sends it."""
    announced = request.headers.get("content-length", "")
    limit, data, more = limit_mb << 20, bytearray(), True
    too_large = announced.isdecimal() and int(announced) > limit
    while more and not too_large:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return b""  # what came of it is no file, and nobody hears the answer
        data += message.get("body", b"")
        more = message.get("more_body", False)
        too_large = len(data) > limit
    if too_large:
        del data
        if more:
            await drain(request.receive, 8 * limit)
        raise InvalidInput("file", f"more than {limit_mb} MiB", "at most that (PERRIN_MAX_UPLOAD_MB)")
    return bytes(data)
