// An upstream for proxy routes: kept connections, chunked bodies with trailers, and 103 Early Hints.
import http from "node:http";

const connections = new Set();
const server = http.createServer((request, response) => {
  connections.add(request.socket);
  if (request.url === "/trailers") {
    response.writeHead(200, { trailer: "x-sum", "content-type": "text/plain" });
    response.write("one ");
    response.addTrailers({ "x-sum": "7" });
    response.end("two");
  } else if (request.url === "/hints") {
    response.writeEarlyHints({ link: "</style.css>; rel=preload; as=style", "x-early": "1" }, () => response.end("late"));
  } else if (request.url === "/connections") {
    response.end(String(connections.size));
  } else {
    const pieces = [];
    request.on("data", (piece) => pieces.push(piece));
    request.on("end", () => {
      const { "transfer-encoding": coding, "content-length": length } = request.headers;
      const body = Buffer.concat(pieces);
      response.end(JSON.stringify({ method: request.method, coding, length, size: body.length, sum: body.at(-1) }));
    });
  }
});
server.listen(0, "127.0.0.1", () => console.log(`Running on http://127.0.0.1:${server.address().port}`));
