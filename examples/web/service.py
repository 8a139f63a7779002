"""A FastAPI service that hands its work to taskq without holding up the event loop.

For real: `taskq worker -c 2` and `uvicorn service:service` in this folder.
"""

from fastapi import FastAPI, HTTPException
from tasks import resize

from taskq import PublishError, TimeoutError

service = FastAPI()


@service.post("/pictures/{name}")
async def resized(name: str, width: int) -> dict[str, str]:
    try:
        result = await resize.adelay(name, width)
        return {"picture": await result.aget(timeout=30)}
    except PublishError as error:
        raise HTTPException(503, "the queue cannot be reached") from error
    except TimeoutError as error:
        raise HTTPException(504, "it takes too long") from error
