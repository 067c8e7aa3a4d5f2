// The HTTP clients of Node.js against one server; prints what each saw, as JSON in one line.
// Run in a folder whose node_modules has undici, ws and eventsource: node clients.mjs BASE_URL
import http from "node:http";
import http2 from "node:http2";
import { createRequire } from "node:module";
import { once } from "node:events";
import path from "node:path";

const require = createRequire(path.join(process.cwd(), "package.json"));
const { Agent, Pool, request } = require("undici");
const { WebSocket } = require("ws");
const EventSource = require("eventsource");
const base = process.argv[2];
const seen = {};

async function text(stream) {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces).toString();
}

async function byHttp() {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  const ports = new Set();
  const one = () =>
    new Promise((resolve, reject) => {
      const asked = http.get(`${base}/r`, { agent }, (response) => {
        ports.add(response.socket.localPort);
        text(response).then(() => resolve(response.statusCode), reject);
      });
      asked.on("error", reject);
    });
  const statuses = await Promise.all(Array.from({ length: 40 }, one));
  agent.destroy();
  return { statuses: [...new Set(statuses)], connections: ports.size };
}

async function byUndici() {
  const pool = new Pool(base, { connections: 2, pipelining: 8 });
  const answers = await Promise.all(
    Array.from({ length: 40 }, async () => {
      const { statusCode, body } = await pool.request({ path: "/r", method: "GET" });
      await body.text();
      return statusCode;
    }),
  );
  await pool.close();
  return { statuses: [...new Set(answers)] };
}

async function byFetch() {
  const first = await fetch(`${base}/r`);
  await first.text();
  const again = await fetch(`${base}/r`, { headers: { "if-none-match": first.headers.get("etag") } });
  const body = JSON.stringify({ a: "x".repeat(200_000) });
  const upload = new ReadableStream({
    start(controller) {
      for (let at = 0; at < body.length; at += 50_000) controller.enqueue(new TextEncoder().encode(body.slice(at, at + 50_000)));
      controller.close();
    },
  });
  const headers = { "content-type": "application/json" };
  const echoed = await fetch(`${base}/echo`, { method: "POST", body: upload, duplex: "half", headers });
  return { first: first.status, again: again.status, same: (await echoed.json()).got.a.length };
}

async function byHttp2() {
  const session = http2.connect(base);
  const one = async (where) => {
    const stream = session.request({ ":path": where });
    const [head] = await once(stream, "response");
    await text(stream);
    return head[":status"];
  };
  const statuses = await Promise.all(Array.from({ length: 60 }, (_, turn) => one(turn % 2 ? "/r" : "/nowhere")));
  session.close();
  await once(session, "close");
  return { statuses: [...new Set(statuses)].sort() };
}

async function byWebSocket() {
  const socket = new WebSocket(base.replace("http", "ws") + "/socket", { perMessageDeflate: true });
  await once(socket, "open");
  socket.send("hello");
  const [said] = await once(socket, "message");
  const large = "y".repeat(300_000);
  socket.send(large);
  const [back] = await once(socket, "message");
  socket.ping("p");
  const [pong] = await once(socket, "pong");
  socket.close(1000, "done");
  const [code] = await once(socket, "close");
  return { said: said.toString(), large: back.toString() === large, pong: pong.toString(), code };
}

async function byEventSource() {
  const source = new EventSource(`${base}/stream`);
  const seen = [];
  await new Promise((resolve) => {
    for (const name of ["part", "late", "end"]) source.addEventListener(name, (event) => seen.push([name, event.data]));

    source.onerror = resolve; // the stream has ended, and it would ask again
  });
  source.close();
  return { events: seen };
}

async function leaving() {
  const agent = new Agent();
  const controller = new AbortController();
  const asked = request(`${base}/hangs`, { signal: controller.signal, dispatcher: agent }).catch((error) => error.name);
  setTimeout(() => controller.abort(), 100);
  const how = await asked;
  await agent.close();
  return { how };
}

for (const client of [byHttp, byUndici, byFetch, byHttp2, byWebSocket, byEventSource, leaving]) {
  seen[client.name] = await client();
}
console.log(JSON.stringify(seen));
