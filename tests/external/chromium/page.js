// What a browser sees of the program that serves this page. It reports each result to /report, in this order.
async function report(what, seen) {
  await fetch("/report", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ what, seen }),
  });
}

async function json() {
  const first = await fetch("/r");
  const second = await fetch("/r", { headers: { "if-none-match": first.headers.get("etag") } });
  return { status: first.status, body: await first.json(), again: second.status };
}

async function compressed() {
  const first = await fetch("/long", { cache: "no-cache" });
  // The browser has the response in its cache and asks with If-None-Match; a 304 has no body.
  const second = await fetch("/long", { cache: "no-cache" });
  const texts = [await first.text(), await second.text()];
  const timing = performance.getEntriesByType("resource").filter((each) => each.name.endsWith("/long"));
  return {
    coding: first.headers.get("content-encoding"),
    lengths: texts.map((each) => each.length),
    sent: timing.map((each) => (each.transferSize < 1000 ? "little" : "much")),
    bodies: timing.map((each) => each.encodedBodySize < each.decodedBodySize),
  };
}

async function upload() {
  const reply = await fetch("/echo", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ a: "x".repeat(500000) }),
  });
  return { status: reply.status, length: (await reply.json()).got.a.length };
}

async function manyAtOnce() {
  const replies = await Promise.all(Array.from({ length: 50 }, () => fetch("/r", { cache: "no-store" })));
  await Promise.all(replies.map((each) => each.text()));
  const timing = performance.getEntriesByType("resource").filter((each) => each.name.endsWith("/r"));
  return {
    statuses: [...new Set(replies.map((each) => each.status))],
    protocols: [...new Set(timing.map((each) => each.nextHopProtocol))],
  };
}

function webSocket() {
  return new Promise((resolve) => {
    const socket = new WebSocket(`${location.origin.replace("http", "ws")}/socket`);
    const seen = [];
    socket.onopen = () => socket.send("hello");
    socket.onmessage = (event) => {
      seen.push(event.data.length > 20 ? event.data.length : event.data);
      if (seen.length === 1) socket.send("y".repeat(300000));
      else socket.close(1000, "done");
    };
    socket.onclose = (event) => resolve({ seen, code: event.code });
    socket.onerror = () => seen.push("error");
  });
}

// The first event comes while another call still waits: the report "first event" is what lets it go on.
function eventSource() {
  return new Promise((resolve) => {
    const source = new EventSource("/stream");
    const seen = [];
    for (const name of ["part", "late", "end"]) {
      source.addEventListener(name, (event) => {
        seen.push(name);
        if (seen.length === 1) report("first event", name);
        if (name === "end") {
          source.close();
          resolve({ seen, data: JSON.parse(event.data) });
        }
      });
    }
  });
}

async function leaving() {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 100);
  return fetch("/hangs", { signal: controller.signal }).catch((error) => error.name);
}

(async () => {
  for (const part of [json, compressed, upload, manyAtOnce, webSocket, eventSource, leaving]) {
    try {
      await report(part.name, await part());
    } catch (error) {
      await report(part.name, String(error));
    }
  }
  await report("done", null);
})();
