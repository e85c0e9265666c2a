// BullMQ, driven as work.py drives the others. BENCH_NODE is the folder with its node_modules.
import fs from 'node:fs'
import { createRequire } from 'node:module'

const load = createRequire(`${process.env.BENCH_NODE}/`)
const { Queue, QueueEvents, Worker } = load('bullmq')

const server = new URL(process.env.BENCH_URL)
const connection = { host: server.hostname, port: Number(server.port), maxRetriesPerRequest: null }
const options = { removeOnComplete: process.env.BENCH_RESULTS !== '1' }
const WARM_UP = 20
const PER_CALL = 1000
const [what, argument] = process.argv.slice(2)
const count = Number(argument)

const tell = (found) => console.log(JSON.stringify(found))

function work() {
  const file = fs.openSync(process.env.BENCH_HITS, 'a')
  new Worker('bench', async () => { fs.writeSync(file, '.'); return true }, { connection, concurrency: 100 })
}

async function latency(queue) {
  const events = new QueueEvents('bench', { connection })
  await events.waitUntilReady()
  const ms = []
  for (let n = 0; n < WARM_UP + count; n++) {
    const start = performance.now()
    const job = await queue.add('noop', {}, options)
    await job.waitUntilFinished(events, 20_000)
    ms.push(performance.now() - start)
  }
  tell({ ms: ms.slice(WARM_UP) })
}

async function submit(queue) {
  const start = performance.now()
  if (what === 'one') {
    for (let n = 0; n < count; n++) await queue.add('noop', {}, options)
  } else {
    for (let first = 0; first < count; first += PER_CALL) {
      const length = Math.min(PER_CALL, count - first)
      await queue.addBulk(Array.from({ length }, () => ({ name: 'noop', data: {}, opts: options })))
    }
  }
  tell({ per_s: count / ((performance.now() - start) / 1000) })
}

if (what === 'worker') {
  work()
} else {
  const queue = new Queue('bench', { connection })
  await queue.add('noop', {}, options)
  await (what === 'latency' ? latency(queue) : submit(queue))
  process.exit(0)
}
