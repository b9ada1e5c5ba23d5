// The parts of live.sh that are easier here: a browser that watches the page,
// and the comparison. Lists of events are files of one JSON object a line.
import { chromium } from "playwright-core";
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [command, ...args] = process.argv.slice(2);
const seconds = (n) => n * 1000;
const parse = (text) => text.split("\n").filter((l) => l !== "").map((l) => JSON.parse(l));
const lines = (path) => parse(readFileSync(path, "utf8").replace(/[^\n]*$/, "")); // the last may be half

// An event as everybody shows it, on one line.
const event = (e) => ({ id: e.id, type: e.event_type, payload: JSON.stringify(e.payload) });

// What curl wrote: the data of blocks without an event: line.
const stream = (path) =>
  readFileSync(path, "utf8").split("\n\n").slice(0, -1)
    .filter((b) => !/^event: /m.test(b) && /^data: /m.test(b))
    .map((b) => JSON.parse(/^data: (.*)$/m.exec(b)[1]));

async function until(what, within, ok) {
  for (const end = Date.now() + within; !(await ok()); ) {
    if (Date.now() > end) throw new Error(`${what} did not happen in ${within / 1000} s`);
    await new Promise((r) => setTimeout(r, 100));
  }
}

// watch opens the page and writes every event that it announces, until it has
// the one in last.json. Then it looks at the rows and takes a picture.
async function watch(ops, work, screenshot) {
  const profile = mkdtempSync(join(tmpdir(), "live-"));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM, headless: true, viewport: { width: 1280, height: 800 },
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
  try {
    const page = browser.pages()[0];
    const out = join(work, "page.ndjson"), last = join(work, "last.json"), ids = [];
    page.on("console", (m) => console.log("console:", m.text()));
    page.on("pageerror", (e) => console.log("error:", e));
    await page.exposeFunction("announce", (list) => {
      ids.push(...list.map((e) => e.id));
      appendFileSync(out, list.map((e) => JSON.stringify(e) + "\n").join(""));
    });
    await page.addInitScript(() => {
      let batch = [];
      window.addEventListener("carillon:event", ({ detail }) => {
        if (batch.push(detail) === 1) setTimeout(() => { window.announce(batch); batch = []; }, 50);
      });
    });
    writeFileSync(out, "");
    await page.goto(ops + "/");
    await page.waitForSelector("html[data-state=open]", { state: "attached", timeout: seconds(20) });
    writeFileSync(join(work, "page.ready"), "");
    await until("the end of the tests", seconds(600), () => existsSync(last));
    const { id } = JSON.parse(readFileSync(last, "utf8"));
    await until("the last event on the page", seconds(60), () => ids.includes(id));
    const shown = () => page.$$eval("tr.event", (rows) => rows.map((r) => r.dataset.id));
    await until("the last event among the rows", seconds(10), async () => (await shown())[0] === id);
    const rows = (await shown()).reverse();
    if (rows.join() !== ids.slice(-500).join()) throw new Error("the rows are not the newest 500 events, newest first");
    await page.waitForTimeout(1200); // for the colour of new rows to fade
    await page.screenshot({ path: screenshot });
  } finally {
    await browser.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

// history prints the whole log.
async function history(url, token) {
  for (let after = "earliest", more = true; more; ) {
    const answer = await fetch(`${url}/v1/events?limit=1000&after=${after}`, { headers: { authorization: `Bearer ${token}` } });
    if (!answer.ok) throw new Error(`history: ${answer.status} ${await answer.text()}`);
    const page = await answer.json();
    for (const e of page.events) console.log(JSON.stringify(e));
    ({ cursor: after, more } = page);
  }
}

// has says whether curl and tail have the last event.
function has(work) {
  const { id } = JSON.parse(readFileSync(join(work, "last.json"), "utf8"));
  return stream(join(work, "curl.sse")).at(-1)?.id === id && lines(join(work, "tail.ndjson")).at(-1)?.id === id;
}

// compare says in how far everybody has what the log has.
function compare(work) {
  const log = lines(join(work, "history.ndjson")).map(event);
  const watchers = {
    page: lines(join(work, "page.ndjson")), curl: stream(join(work, "curl.sse")), tail: lines(join(work, "tail.ndjson")),
  };
  let same = true;
  for (const [name, list] of Object.entries(watchers)) {
    const theirs = list.map(event);
    const at = log.findIndex((e, i) => ["id", "type", "payload"].some((k) => e[k] !== theirs[i]?.[k]));
    if (at < 0 && theirs.length === log.length) continue;
    same = false;
    console.error(`live: ${name} has ${theirs.length} events, the log has ${log.length}; the first difference is at event ${(at < 0 ? log.length : at) + 1}:`);
    const i = at < 0 ? log.length : at;
    console.error("  log ", log[i], `\n  ${name}`, theirs[i]);
  }
  const types = {};
  for (const e of log) types[e.type] = (types[e.type] ?? 0) + 1;
  const list = Object.entries(types).map(([t, n]) => `${n} ${t}`).join(", ");
  if (same) console.log(`live: page, curl and tail show the same ${log.length} events, with the same ids, in the same order (${list})`);
  return same;
}

const commands = { watch, history, has, compare };
if ((await commands[command](...args)) === false) process.exit(1);
