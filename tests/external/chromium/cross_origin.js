// What a page may do with a gateway at another origin, whose port is the page's query. It reports to its own origin.
const scheme = location.protocol;
const api = `${scheme}//127.0.0.1:${location.search.slice(1)}`;
const json = { "content-type": "application/json" };

async function report(what, seen) {
  await fetch("/report", { method: "POST", headers: json, body: JSON.stringify({ what, seen }) });
}

async function outcome(target, options) {
  try {
    const reply = await fetch(api + target, options);
    const text = await reply.text();
    return { status: reply.status, body: text.startsWith("{") ? JSON.parse(text) : text, reply };
  } catch (error) {
    return { error: error.name };
  }
}

const status = async (target, options) => {
  const { status, error } = await outcome(target, options);
  return status ?? error;
};
const put = (headers = {}) => ({ method: "PUT", headers: { ...json, ...headers }, body: '{"a":1}' });

async function simple() {
  const { status, body, reply } = await outcome("/r");
  const fields = ["umbel-completed", "x-own", "x-request-id", "content-type"].map((name) => reply.headers.get(name));
  return { status, body, type: reply.type, fields };
}

async function credentials() {
  const before = await outcome("/me", { credentials: "include" });
  await outcome("/login", { credentials: "include" });
  const after = await outcome("/me", { credentials: "include" });
  const without = await outcome("/me", { credentials: "omit" });
  return [before.body, after.body, without.body];
}

async function preflights() {
  const first = await outcome("/put", put({ "x-tenant": "one" }));
  const again = await outcome("/put", put({ "x-tenant": "two" }));
  return {
    bodies: [first.body, again.body],
    header: await status("/put", put({ "x-evil": "1" })),
    method: await status("/put", { method: "DELETE" }),
  };
}

async function errors() {
  const missing = await outcome("/none", put());
  const large = { method: "POST", headers: json, body: JSON.stringify("x".repeat(3000)) };
  return {
    detail: missing.body.detail,
    missing: missing.status,
    method: await status("/r", { method: "POST", body: "x" }),
    login: await status("/private"),
    limit: await status("/echo", large),
    server: await status("/upload", { ...large, body: JSON.stringify("x".repeat(700000)) }),
    crash: await status("/crash"),
    upstream: await status("/dead"),
    late: await status("/slow"),
  };
}

async function redirects() {
  const { status, reply } = await outcome("/old");
  const slash = await outcome("/folder");
  return { status, redirected: reply.redirected, path: new URL(reply.url).pathname, slash: slash.status };
}

async function closed() {
  const opaque = await fetch(`${api}/closed`, { mode: "no-cors" });
  return { read: await status("/closed"), noCors: opaque.type };
}

async function sandboxed() {
  const heard = new Promise((resolve) => (onmessage = (event) => resolve(event.data)));
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts";
  frame.srcdoc = `<script>fetch("${api}/r").then(() => "read", (e) => e.name).then((s) => parent.postMessage(s, "*"))</script>`;
  document.body.append(frame);
  return heard;
}

async function download() {
  const reply = await fetch(`${api}/download`);
  return { name: reply.headers.get("content-disposition"), bytes: (await reply.arrayBuffer()).byteLength };
}

async function upload() {
  const body = JSON.stringify({ a: "x".repeat(500000) });
  return (await outcome("/upload", { method: "POST", headers: json, body })).body;
}

async function conditional() {
  const first = await fetch(`${api}/r`, { cache: "no-store" });
  const headers = { "if-none-match": first.headers.get("etag") };
  const head = await fetch(`${api}/r`, { method: "HEAD", cache: "no-store" });
  const again = await fetch(`${api}/r`, { headers, cache: "no-store" });
  return { again: again.status, head: head.headers.get("etag") === first.headers.get("etag") };
}

async function lines() {
  const reply = await fetch(`${api}/stream`, { headers: { accept: "application/x-ndjson" } });
  return (await reply.text()).trim().split("\n").map((line) => JSON.parse(line)).at(-1);
}

function events() {
  return new Promise((resolve) => {
    const source = new EventSource(`${api}/stream`, { withCredentials: true });
    source.addEventListener("end", (event) => {
      source.close();
      resolve(JSON.parse(event.data));
    });
    source.onerror = () => resolve("error");
  });
}

onload = async () => {
  const parts = [simple, credentials, preflights, errors, redirects, closed, sandboxed, download, upload, conditional];
  for (const part of [...parts, lines, events]) {
    try {
      await report(part.name, await part());
    } catch (error) {
      await report(part.name, String(error));
    }
  }
  await report("done", null);
};
