// What a page sees of an upstream through a proxy route, from which the page itself came. It reports to /report.
async function report(what, seen) {
  await fetch("/report", { method: "POST", body: JSON.stringify({ what, seen }) });
}

// The next message of a socket, as text or as an ArrayBuffer.
const message = (socket) => new Promise((resolve) => (socket.onmessage = (event) => resolve(event.data)));
const closed = (socket) =>
  new Promise((resolve) => (socket.onclose = (event) => resolve([event.code, event.reason, event.wasClean])));

async function open(path, ...protocols) {
  const socket = new WebSocket(`${location.origin.replace("http", "ws")}${path}`, ...protocols);
  socket.binaryType = "arraybuffer";
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = reject;
  });
  return socket;
}

// The upstream sends each event only once the report of the one before has come, and then breaks off.
function eventSource() {
  return new Promise((resolve) => {
    const source = new EventSource("/events");
    const seen = [];
    source.onerror = () => seen.push(["error", source.readyState]);
    source.onmessage = (event) => {
      seen.push([event.lastEventId, event.data]);
      if (event.data === "last") {
        source.close();
        resolve(seen);
      } else report("event", event.data);
    };
  });
}

async function webSocket() {
  const socket = await open("/ws", ["v2", "v1"]);
  const seen = { protocol: socket.protocol };
  socket.send("hello");
  seen.text = await message(socket);
  const large = new Uint8Array(1_000_000).map((_, index) => index * 7);
  socket.send(large);
  const back = new Uint8Array(await message(socket));
  seen.binary = [back.length, back.every((byte, index) => byte === large[index])];
  const end = closed(socket);
  socket.close(4321, "own");
  seen.end = await end;
  const other = await open("/ws");
  seen.noProtocol = other.protocol;
  const otherEnd = closed(other);
  other.send("close 3456");
  seen.otherEnd = await otherEnd;
  return seen;
}

function refusedWebSocket() {
  return new Promise((resolve) => {
    const socket = new WebSocket(`${location.origin.replace("http", "ws")}/refused`);
    socket.onclose = (event) => resolve(event.code);
  });
}

// The upstream reads a quarter, and goes on once the report of a progress has come.
function upload() {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    // Over HTTP/1.1 the buffers of three sockets hold some megabytes.
    const size = location.protocol === "https:" ? 10_000_000 : 200_000_000;
    const steps = [];
    request.upload.onprogress = (event) => {
      if (steps.length === 0 && event.loaded < size) report("progress", event.loaded);
      steps.push(event.loaded);
    };
    request.onload = () =>
      resolve({
        status: request.status,
        body: request.responseText,
        grows: steps.every((loaded, index) => index === 0 || loaded >= steps[index - 1]),
        several: steps.length > 2,
        total: steps.at(-1) === size,
      });
    request.onerror = () => resolve("error");
    request.open("PUT", "/upload");
    request.send(new Uint8Array(size));
  });
}

// The upstream sends each piece only once the report of the one before has come.
async function streaming() {
  const reply = await fetch("/pieces");
  const seen = [];
  const decoder = new TextDecoder();
  for (let reader = reply.body.getReader(), part; !(part = await reader.read()).done; ) {
    seen.push(decoder.decode(part.value));
    report("piece", seen.at(-1));
  }
  return seen;
}

async function draining() {
  const socket = await open("/ws");
  socket.send("hello");
  await message(socket);
  const end = closed(socket);
  await report("ready to drain", null);
  return end;
}

(async () => {
  for (const part of [eventSource, webSocket, refusedWebSocket, upload, streaming]) {
    try {
      await report(part.name, await part());
    } catch (error) {
      await report(part.name, String(error));
    }
  }
  // The gateway is gone after the drain, so the page reports to the upstream itself.
  const end = await draining().catch(String);
  await fetch(`${location.search.slice(1)}/report`, {
    method: "POST",
    mode: "no-cors",
    body: JSON.stringify({ what: "draining", seen: end }),
  });
})();
