"""The services behind the stream page, in one program: a language model, a second one, and sources of a briefing.

    hypercorn -k trio -b 127.0.0.1:9001 services:app

The models are toys: they repeat the prompt, one token each TOKEN_MS milliseconds (100 unless it is set). What matters
here is the form of their responses, server-sent events, and that an abandoned one can be seen to end: `/running` is a
stream of the number of responses that are being generated.
"""

import json
import os
from contextlib import contextmanager

import trio
from quart import Response, request
from quart_trio import QuartTrio

TOKEN_S = float(os.environ.get("TOKEN_MS", "100")) / 1000
TOKENS = 200

app = QuartTrio(__name__, static_folder=None)


class Running:
    """The number of responses that are being generated, for those who wait for its changes."""

    def __init__(self):
        self.count = 0
        self._changed = trio.Event()

    @contextmanager
    def one_more(self):
        self._change(+1)
        try:
            yield
        finally:
            self._change(-1)

    def _change(self, by):
        self.count += by
        self._changed.set()
        self._changed = trio.Event()

    async def changed_from(self, count):
        while self.count == count:
            await self._changed.wait()
        return self.count


running = Running()


def events(generator):
    return Response(generator, content_type="text/event-stream", headers={"Cache-Control": "no-store"})


@app.post("/<any(model, second):name>/v1/chat")
async def chat(name):
    words = (await request.get_json())["prompt"].split() or ["..."]

    async def generate():
        with running.one_more():  # Left when the response is complete, and also when its client has left.
            for number in range(TOKENS):
                await trio.sleep(TOKEN_S)
                yield f"data: {json.dumps({'model': name, 'token': words[number % len(words)]})}\n\n"
            yield "data: [DONE]\n\n"

    return events(generate())


@app.get("/running")
async def watch():
    async def generate():
        count = running.count
        yield f"data: {count}\n\n"
        while True:
            count = await running.changed_from(count)
            yield f"data: {count}\n\n"

    return events(generate())


@app.get("/weather/<city>")
async def weather(city):
    await trio.sleep(0.05)
    return {"city": city, "sky": "clear", "celsius": 21}


@app.get("/news/<city>")
async def news(city):
    await trio.sleep(0.4)
    return [{"id": 7, "title": f"A bridge opens in {city}"}, {"id": 8, "title": f"{city} plants trees"}]


@app.get("/articles/<int:number>")
async def article(number):
    await trio.sleep(0.4)
    return {"id": number, "text": f"The text of article {number}."}
