// Who watches: a page in a browser, a stream, and in the end the log itself.
import { chromium } from "playwright-core";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";

// Seen is when which delivery became an event somewhere, by the clock of this process.
class Seen {
  at = new Map();
  #waiting = new Map();

  add(delivery) {
    if (!this.at.has(delivery)) this.at.set(delivery, performance.now());
    this.#waiting.get(delivery)?.(this.at.get(delivery));
    this.#waiting.delete(delivery);
  }

  // when resolves with that time.
  when(delivery, seconds = 20) {
    if (this.at.has(delivery)) return this.at.get(delivery);
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`delivery ${delivery} was not seen within ${seconds} s`)), seconds * 1000);
      this.#waiting.set(delivery, (at) => { clearTimeout(late); resolve(at); });
    });
  }
}

// servePage gives the page to the browser, from an origin of its own.
export async function servePage() {
  const html = readFileSync(new URL("hooks.html", import.meta.url));
  const server = createServer((request, response) => {
    response.setHeader("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src http://127.0.0.1:*");
    response.setHeader("Content-Type", "text/html; charset=utf-8").end(html);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => { server.close(); server.closeAllConnections(); } };
}

// openPage opens the page, which tells of each event when its row is there.
export async function openPage(profile, origin, url, token) {
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM, headless: true, viewport: { width: 1280, height: 800 },
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
  const page = browser.pages()[0], seen = new Seen();
  page.on("pageerror", (e) => console.error("hooks: error in the page:", e));
  await page.exposeFunction("arrived", (delivery) => seen.add(delivery));
  await page.addInitScript(() => {
    window.events = [];
    window.addEventListener("carillon:event", ({ detail }) => {
      window.events.push(detail);
      window.arrived(detail.delivery);
    });
  });
  await page.goto(`${origin}/#${new URLSearchParams({ url, token })}`);
  await page.waitForSelector("html[data-state=open]", { state: "attached", timeout: 20_000 });
  return {
    seen,
    events: async () => JSON.parse(await page.evaluate(() => JSON.stringify(window.events))),
    rows: () => page.$$eval("#rows tr", (rows) => rows.map((r) => r.dataset.id)),
    screenshot: (path) => page.screenshot({ path }),
    close: () => browser.close(),
  };
}

// openStream reads a stream of SSE, and comes back with the id of the last event when
// it is cut.
export async function openStream(url, token) {
  const events = [], seen = new Seen(), stop = new AbortController();
  let last = "", opened;
  const open = new Promise((r) => { opened = r; });
  function block(text) {
    const of = (name) => text.split("\n").find((l) => l.startsWith(name + ": "))?.slice(name.length + 2);
    last = of("id") ?? last;
    if (of("event") === "carillon.subscribed") opened();
    if (of("event") || !of("data")) return;
    const event = JSON.parse(of("data"));
    events.push(event);
    seen.add(event.delivery);
  }
  async function read() {
    const headers = { authorization: `Bearer ${token}`, ...(last && { "last-event-id": last }) };
    const answer = await fetch(`${url}/v1/sse?pattern=%3E`, { headers, signal: stop.signal }).catch(() => undefined);
    if (!answer) return; // nobody is there
    if (!answer.ok) throw new Error(`stream: ${answer.status} ${await answer.text()}`);
    let rest = "";
    for await (const piece of untilCut(answer.body.pipeThrough(new TextDecoderStream()))) {
      const blocks = (rest + piece).split("\n\n");
      rest = blocks.pop();
      blocks.forEach(block);
    }
  }
  const done = (async () => {
    while (!stop.signal.aborted) {
      await read();
      await new Promise((r) => setTimeout(r, 50));
    }
  })();
  await Promise.race([open, done]);
  return { seen, events: () => events, close: () => { stop.abort(); return done; } };
}

async function* untilCut(body) {
  try {
    yield* body;
  } catch {
    // What came before it counts.
  }
}

// log polls all there is, from the beginning.
export async function log(url, token) {
  const events = [];
  for (let cursor = "earliest", more = true; more; ) {
    const answer = await fetch(`${url}/v1/poll?pattern=%3E&wait=0&limit=1000&cursor=${cursor}`, { headers: { authorization: `Bearer ${token}` } });
    if (!answer.ok) throw new Error(`poll: ${answer.status} ${await answer.text()}`);
    const page = await answer.json();
    events.push(...page.events);
    ({ cursor, more } = page);
  }
  return events;
}
