// @fastify/http-proxy (its @fastify/reply-from on undici, ws for WebSockets) as a peer of the proxies in benchmarks/proxy.
//
// One keep-alive pool for each upstream, and pino writing its lines in batches. FILES, STREAMS, LOG and PORT come by the
// environment.

import proxy from '@fastify/http-proxy'
import fastify from 'fastify'
import pino from 'pino'
import { Pool } from 'undici'

// A buffer that is written when 4 KiB are there, as pino's documentation advises for throughput.
const destination = pino.destination({ dest: process.env.LOG, minLength: 4096, sync: false })

const app = fastify({
  loggerInstance: pino({ level: 'info' }, destination),
  disableRequestLogging: true, // its two lines per request; ours is one
})

app.addHook('onResponse', (request, reply, done) => {
  request.log.info({ method: request.method, url: request.url, status: reply.statusCode, ms: reply.elapsedTime }, 'answered')
  done()
})

function pool(upstream) {
  // No limit of connections, and none of the time between two pieces of a body.
  return new Pool(upstream, { connections: null, pipelining: 1, keepAliveTimeout: 600_000, headersTimeout: 10_000, bodyTimeout: 0 })
}

for (const [prefix, upstream] of [['/files', process.env.FILES], ['/streams', process.env.STREAMS]]) {
  app.register(proxy, { upstream, prefix, rewritePrefix: prefix, undici: pool(upstream), disableRequestLogging: true })
}

app.register(proxy, {
  upstream: process.env.STREAMS,
  prefix: '/sockets',
  rewritePrefix: '/sockets',
  undici: pool(process.env.STREAMS),
  websocket: true,
  wsServerOptions: { perMessageDeflate: false },
  wsClientOptions: { perMessageDeflate: false },
})

process.once('SIGTERM', () => {
  destination.flushSync()
  process.exit(0)
})

await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT), backlog: 4096 })
