// fastify and undici as a peer of gateways.py: what one builds on Node for speed.
//
// One keep-alive pool for all requests, and pino writing its lines in batches. UPSTREAM, LOG and PORT come by the
// environment.

import fastify from 'fastify'
import pino from 'pino'
import { Pool } from 'undici'

const DEADLINE_MS = 2000
const IDLE_MS = 600_000

// A buffer that is written when 4 KiB are there, as pino's documentation advises for throughput.
const destination = pino.destination({ dest: process.env.LOG, minLength: 4096, sync: false })

// Room for every call in flight, and kept while others are asked. The limits end the calls of a request that has been answered with 504.
const upstream = new Pool(process.env.UPSTREAM, {
  connections: 16 * 50,
  pipelining: 1,
  keepAliveTimeout: IDLE_MS,
  headersTimeout: DEADLINE_MS,
  bodyTimeout: DEADLINE_MS,
})

const app = fastify({
  loggerInstance: pino({ level: 'info' }, destination),
  disableRequestLogging: true, // its two lines per request; ours is one
})

app.addHook('onResponse', (request, reply, done) => {
  request.log.info({ url: request.url, status: reply.statusCode, ms: reply.elapsedTime }, 'answered')
  done()
})

const ITEM = { path: '/item/3', method: 'GET' }

async function call() {
  const { statusCode, body } = await upstream.request(ITEM)
  if (statusCode !== 200) {
    await body.dump()
    throw Object.assign(new Error(`upstream answered ${statusCode}`), { statusCode: 502 })
  }
  return body.json()
}

function composed(count) {
  return async function () {
    let timer
    // One timer per request: an AbortSignal would put a listener on every call.
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(Object.assign(new Error('too late'), { statusCode: 504 })), DEADLINE_MS)
    })
    try {
      const values = await Promise.race([Promise.all(Array.from({ length: count }, call)), late])
      const answer = {}
      for (let number = 0; number < count; number++) answer[`c${number}`] = values[number]
      return answer
    } finally {
      clearTimeout(timer)
    }
  }
}

for (const count of [1, 10, 50]) app.get(`/n${count}`, composed(count))

process.once('SIGTERM', async () => {
  await app.close()
  destination.flushSync()
  process.exit(0)
})

await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
