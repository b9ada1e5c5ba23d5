// What hooks.sh does: node hooks.mjs WORK SCREENSHOT, where WORK has the binary.
import assert from "node:assert/strict";
import { join } from "node:path";
import { largePush } from "./hooks-payloads.mjs";
import { makeNode, until } from "./hooks-node.mjs";
import { githubDelivery, providers } from "./hooks-providers.mjs";
import { log, openPage, openStream, servePage } from "./hooks-watch.mjs";

const [work, screenshot] = process.argv.slice(2);
const kills = Number(process.env.KILLS ?? 3);
const warm = 10, timed = 110; // deliveries sent one after the other, the first ones to warm up
const senders = 16; // that send the others at the same time
const maxSlowness = 60; // seconds

const all = providers();
const sources = Object.fromEntries(Object.entries(all).map(([name, p]) => [name, p.settings]));
const web = await servePage();
const node = await makeNode(work, web.origin, sources);
process.once("SIGTERM", () => node.end("SIGKILL").finally(() => process.exit(143)));

const sent = []; // deliveries that are to be one event each
const count = { refused: 0, again: 0, cut: 0 };
let page, stream, admin, ended;

// post sends once, and gives the answer.
async function post({ source }, headers, body) {
  const answer = await fetch(`${node.url}/hooks/acme/${source}`, { method: "POST", headers, body, signal: AbortSignal.timeout(10_000) });
  return { status: answer.status, text: await answer.text() };
}

// deliver sends until it is taken, signed anew each time, as providers do.
async function deliver(d, headers) {
  sent.push(d);
  for (const end = performance.now() + maxSlowness * 1000; ; ) {
    const answer = await post(d, headers ?? await all[d.source].sign(d), d.body).catch((error) => ({ error }));
    if (answer.status !== 503 && !answer.error) {
      assert.equal(answer.status, 200, `${d.type}: ${answer.text}`);
      return answer.text && JSON.parse(answer.text).id;
    }
    if (performance.now() > end) throw answer.error ?? new Error(answer.text);
    if (answer.error && answer.error.cause?.code !== "ECONNREFUSED") count.cut++; // the node may have it
    headers = undefined;
    await new Promise((r) => setTimeout(r, 50));
  }
}

// get asks for something as an admin.
async function get(path) {
  const answer = await fetch(node.url + path, { headers: { authorization: `Bearer ${admin}` } });
  assert.equal(answer.status, 200, `${path}: ${answer.status}`);
  return answer.json();
}

const deliveries = async (query) => {
  const list = [];
  for (let before = ""; ; ) {
    const { deliveries, next } = await get(`/v1/hooks/deliveries?limit=500&${query}${before}`);
    list.push(...deliveries);
    if (!next) return list;
    before = `&before=${encodeURIComponent(next)}`;
  }
};

const everywhere = (d) => Promise.all([stream.seen.when(d.id), page.seen.when(d.id)]);

// What is not signed, or was signed long ago, is refused and becomes nothing.
async function refuses(source, p) {
  const [d] = p.deliveries;
  const changed = Buffer.from(d.body);
  changed[changed.length >> 1] ^= 1;
  const forged = { "a changed byte": [await p.sign(d), changed], "no signature": [{ "content-type": "application/json" }, d.body] };
  if (source !== "gh") forged["a time of ten minutes ago"] = [await p.sign(d, { at: Date.now() - 600_000 }), d.body];
  if (p.decoy) forged["only a v0"] = [p.decoy(d), d.body];
  for (const [what, [headers, body]] of Object.entries(forged)) {
    const { status, text } = await post(d, headers, body);
    assert.equal(status, 401, `${source} with ${what}: ${status} ${text}`);
    count.refused++;
  }
}

// What comes again is known, and is the same event. Slack says that it tries again;
// the answer to its forms is empty, since it would show it to its user.
async function again(source, p) {
  const form = p.deliveries.find((d) => d.form);
  const retry = (n) => source === "slack" && { "x-slack-retry-num": `${n}`, "x-slack-retry-reason": "http_timeout" };
  for (const n of [1, 2, 3]) {
    const [d] = p.deliveries;
    const { status, text } = await post(d, { ...await p.sign(d), ...retry(n) }, d.body);
    assert.equal(status, 200, `${source} again: ${text}`);
    assert.equal(JSON.parse(text).duplicate, true, `${source} again: ${text}`);
    count.again++;
  }
  if (form) {
    assert.deepEqual(await post(form, p.sign(form), form.body), { status: 200, text: "" });
    count.again++;
  }
}

// What the node kept of a delivery is what was sent: the bytes, and headers by which
// the provider's library takes it.
async function kept(id, d, p) {
  const { body, headers } = await get(`/v1/hooks/deliveries/${encodeURIComponent(id)}`);
  const bytes = Buffer.from(body, "base64").toString();
  assert.ok(bytes === d.body, `${d.type}: the body that is kept is another one`);
  const lower = Object.fromEntries(Object.entries(headers).map(([name, [value]]) => [name.toLowerCase(), value]));
  assert.notEqual(await p.verify(bytes, lower), false, `${d.type}: ${p.library} refuses what is kept`);
}

async function small() {
  const { challenge, sign } = all.slack;
  const body = JSON.stringify(challenge);
  assert.deepEqual(await post({ source: "slack" }, sign({ body }), body), { status: 200, text: challenge.challenge });
  for (const [source, p] of Object.entries(all)) {
    await refuses(source, p);
    const list = source === "gh" ? p.deliveries.slice(0, 1) : p.deliveries;
    for (const d of list) {
      const headers = await p.sign(d);
      assert.notEqual(await p.verify(d.body, headers), false, `${p.library} refuses what we send`);
      await deliver(d, headers);
      await everywhere(d);
      await kept(d.id, d, p);
    }
    await again(source, p);
  }
}

// One after the other: how long from the sender to the page?
async function timely(list) {
  const took = { answer: [], stream: [], page: [] };
  for (const [n, d] of list.entries()) {
    const headers = await all.gh.sign(d), began = performance.now();
    await deliver(d, headers);
    const answered = performance.now();
    const [inStream, inPage] = await everywhere(d);
    if (n < warm) continue;
    took.answer.push(answered - began);
    took.stream.push(inStream - began);
    took.page.push(inPage - began);
  }
  return took;
}

// Many at the same time, and the node is killed in the middle.
async function killed(list) {
  const queue = [...list];
  let answered = 0, kill = 0, restart;
  async function sender() {
    for (let d; (d = queue.shift()); ) {
      await deliver(d);
      if (++answered >= ((kill + 1) * list.length) / (kills + 1) && kill < kills && !restart) {
        kill++;
        restart = (async () => {
          // Not at the moment of an answer, when nothing is on its way.
          await new Promise((r) => setTimeout(r, Math.random() * 30));
          assert.equal(await node.end("SIGKILL"), "SIGKILL");
          await node.start();
          restart = undefined;
        })();
      }
    }
  }
  await Promise.all(Array.from({ length: senders }, sender));
  await restart;
}

async function large() {
  const d = githubDelivery("push", largePush());
  Object.assign(d, { source: "gh", type: "gh.push" });
  const size = Buffer.byteLength(d.body);
  assert.ok(size > 200_000);
  d.payload = { truncated: true, size };
  const id = await deliver(d);
  await everywhere(d);
  await kept(id ?? d.id, d, all.gh); // no id of ours: the log was away for a moment
  return size;
}

// compare holds everybody to what was sent, and to the order of the log.
async function compare() {
  await until("the end of what waits", maxSlowness, async () => (await deliveries("state=pending")).length === 0);
  const events = await log(node.url, admin);
  const last = events.at(-1);
  await until("the last event everywhere", 20, () => page.seen.at.has(last.delivery) && stream.seen.at.has(last.delivery));

  const became = new Map();
  for (const e of events) became.set(e.delivery, [...(became.get(e.delivery) ?? []), e]);
  for (const d of sent) {
    const [e, ...others] = became.get(d.id) ?? [];
    assert.ok(e, `${d.type}, delivery ${d.id}, is no event`);
    assert.equal(others.length, 0, `${d.type}, delivery ${d.id}, is ${others.length + 1} events`);
    assert.equal(e.event_type, d.type);
    assert.equal(e.source, d.source);
    assert.deepEqual(e.payload, d.payload);
  }
  assert.equal(events.length, sent.length, "there are events that nobody sent");

  for (const [who, list] of Object.entries({ page: await page.events(), stream: stream.events() })) {
    const at = events.findIndex((e, i) => JSON.stringify(e) !== JSON.stringify(list[i]));
    const place = (at < 0 ? events.length : at) + 1;
    assert.ok(at < 0 && list.length === events.length, `the ${who} has ${list.length} events, the log ${events.length}; the first difference is at event ${place}`);
  }
  assert.deepEqual(await page.rows(), events.slice(-200).map((e) => e.id).reverse(), "the rows are the newest 200 events, newest first");

  assert.equal((await deliveries("state=published")).length, sent.length);
  assert.equal((await deliveries("state=refused")).length, count.refused);
  assert.equal((await deliveries("state=dead,discarded,filtered")).length, 0);
  return (await deliveries("state=duplicate")).length;
}

const percentile = (list, p) => list.toSorted((a, b) => a - b)[Math.min(list.length - 1, Math.floor(list.length * p))].toFixed(1);
const say = (text) => console.log("hooks: " + text);

try {
  await node.start();
  admin = await node.token("script", "admin");
  const member = await node.token("page", "member");
  [page, stream] = await Promise.all([openPage(join(work, "profile"), web.origin, node.url, member), openStream(node.url, member)]);

  await small();
  const github = all.gh.deliveries.slice(1);
  const took = await timely(github.slice(0, timed));
  await killed(github.slice(timed));
  const size = await large();
  const duplicates = await compare();
  await page.screenshot(screenshot);

  const list = Object.entries(all).map(([source, p]) => `${sent.filter((d) => d.source === source).length} of ${source} (${p.library})`).join(", ");
  say(`${sent.length} deliveries are ${sent.length} events, the same in the page, the stream and the log, in the same order: ${list}`);
  say(`${count.refused} that were forged or late are no events, nor are ${count.again} that came again; one of ${size} bytes is kept as it came`);
  say(`killing the node (${kills}) left ${count.cut} requests without an answer; ${duplicates - count.again} of them had been stored, and all were sent again`);
  for (const [where, ms] of Object.entries(took)) say(`from the sender to the ${where}: p50 ${percentile(ms, 0.5)} ms, p99 ${percentile(ms, 0.99)} ms (${ms.length} deliveries, one after the other)`);
} finally {
  await Promise.allSettled([page?.close(), stream?.close()]);
  web.close();
  ended = await node.end("SIGTERM");
}
assert.equal(ended, 0, "the node did not end as it should after SIGTERM");
