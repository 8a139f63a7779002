"""python examples/run.py web: twenty requests at once to a FastAPI service that uses taskq.

The service runs in this process, so that one command is enough; service.py says how to serve it.
"""

import asyncio

import httpx
from service import service


async def main() -> None:
    transport = httpx.ASGITransport(app=service)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        requests = [client.post(f"/pictures/{n}.png", params={"width": 100}) for n in range(20)]
        responses = await asyncio.gather(*requests)
    for response in responses:
        print(response.status_code, response.json()["picture"])


asyncio.run(main())
