// A WebSocket server that sends each message back, with permessage-deflate if the client offers it.
// Run in a folder whose node_modules has ws: node echo.mjs
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.join(process.cwd(), "package.json"));
const { WebSocketServer } = require("ws");
const server = new WebSocketServer({ port: 0, host: "127.0.0.1", perMessageDeflate: true, maxPayload: 0 }, () => {
  console.log(`Running on http://127.0.0.1:${server.address().port}`);
});
server.on("connection", (socket) => {
  socket.on("error", () => {}); // Most cases break the protocol, and ws closes their connections.
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});
