// The page of the operations port. Under `carillon dev` it is a client of the
// public port that shows events as they come; otherwise it shows how the node
// does. Text from events reaches the page as text only, never as markup.
//
// For scripts that watch the page: <html> has data-state and data-received, each
// row of an event data-id, and every event is dispatched on window as
// "carillon:event", in the order it came.
"use strict";

const maxRows = 500;       // on the page; older rows go
const rememberedIds = 5000; // a reconnect may bring some events again
const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const number = new Intl.NumberFormat("en");

// ---- The list: what came waits for the next frame of the screen.

const waiting = []; // rows to add, the oldest first
let paused = false, drawing = false, received = 0, missed = 0;

function add(row) {
  waiting.push(row);
  if (waiting.length > maxRows) missed += waiting.splice(0, waiting.length - maxRows).filter((r) => r.id).length;
  draw();
}

function draw() {
  if (drawing) return;
  drawing = true;
  // Without frames, as in a page nobody looks at, the list stays as it was.
  requestAnimationFrame(() => {
    drawing = false;
    root.dataset.received = received;
    $("received").textContent = number.format(received);
    if (paused) {
      $("pause").textContent = `Resume (${number.format(waiting.length + missed)} waiting)`;
      return;
    }
    const rows = $("rows"), batch = document.createDocumentFragment();
    const fresh = waiting.splice(0).map(render).reverse();
    missed = 0;
    batch.append(...fresh);
    rows.prepend(batch);
    for (let n = rows.querySelectorAll("tr:not(.detail)").length; n > maxRows; n--) {
      if (rows.lastChild.classList.contains("detail")) rows.lastChild.remove();
      rows.lastChild.remove();
    }
    $("empty").hidden = rows.firstChild !== null;
    setTimeout(() => fresh.forEach((tr) => tr.classList.remove("new")), 60);
  });
}

function render(row) {
  const tr = document.createElement("tr");
  const cell = (text, title) => {
    const td = document.createElement("td");
    td.textContent = text;
    if (title) td.title = title;
    tr.append(td);
    return td;
  };
  if (row.notice) {
    tr.className = "notice";
    cell(row.notice).colSpan = 6;
    return tr;
  }
  tr.className = "event new";
  tr.dataset.id = row.id || "";
  tr.tabIndex = 0;
  tr.setAttribute("aria-expanded", "false");
  const at = new Date(row.timestamp), two = (n, w = 2) => String(n).padStart(w, "0");
  cell(`${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${two(at.getMilliseconds(), 3)}`, row.timestamp);
  const type = cell(row.event_type, row.event_type);
  for (const tag of [row.direct ? "direct" : "", row.room || ""]) {
    if (!tag) continue;
    const span = document.createElement("span");
    span.className = "tag";
    span.textContent = tag;
    type.prepend(span);
  }
  cell(row.subject || "", row.subject);
  cell(row.from || row.source || "", row.from || row.source);
  const payload = row.payload === undefined ? "" : JSON.stringify(row.payload);
  cell(payload.length > 400 ? payload.slice(0, 400) + "…" : payload);
  cell(row.id || "", row.id);
  tr.event = row;
  return tr;
}

function toggle(tr) {
  if (tr.nextSibling?.classList.contains("detail")) {
    tr.nextSibling.remove();
    tr.classList.remove("open");
    tr.setAttribute("aria-expanded", "false");
    return;
  }
  const detail = document.createElement("tr"), td = document.createElement("td"), pre = document.createElement("pre");
  detail.className = "detail";
  td.colSpan = 6;
  pre.textContent = JSON.stringify(tr.event, null, 2);
  td.append(pre);
  detail.append(td);
  tr.after(detail);
  tr.classList.add("open");
  tr.setAttribute("aria-expanded", "true");
}

$("rows").addEventListener("click", (e) => {
  const tr = e.target.closest("tr.event");
  if (tr && !String(getSelection())) toggle(tr);
});
$("rows").addEventListener("keydown", (e) => {
  if ((e.key === "Enter" || e.key === " ") && e.target.matches("tr.event")) {
    e.preventDefault();
    toggle(e.target);
  }
});

// ---- The connection: idle | connecting | open | waiting | closed.

let live = null;      // what the operations port says about the public one
let socket = null;
let cursor = null;    // where to go on after a break
let pattern = ">";    // subscribed to
let wanted = ">";     // asked for
let attempts = 0, pauseUntil = 0, timer = 0, silence = 0, maxIdle = 25000, tokens = 0;
const seen = new Set();
const arrivals = [];  // times of the last second

function state(name, text) {
  root.dataset.state = name;
  $("state").textContent = text || name;
}

function problem(text) {
  $("problem").hidden = !text;
  $("problem").textContent = text || "";
}

function connect() {
  clearTimeout(timer);
  state("connecting");
  const url = new URL("/v1/ws", live.url);
  url.protocol = url.protocol.replace("http", "ws");
  url.searchParams.set("after", cursor || $("start").value);
  const ws = socket = new WebSocket(url, ["carillon.v1", "bearer." + live.token]);
  ws.onmessage = (m) => { if (ws === socket) take(JSON.parse(m.data)); };
  ws.onclose = (e) => { if (ws === socket) closed(e); };
  listen();
}

// listen gives the connection up when it is silent for too long: a browser does
// not notice by itself.
function listen() {
  clearTimeout(silence);
  silence = setTimeout(() => {
    const dead = socket;
    socket = null;
    dead.close();
    closed({ code: 1006, reason: "nothing was heard" });
  }, maxIdle * 2 + 5000);
}

function closed(e) {
  clearTimeout(silence);
  socket = null;
  if (e.code >= 4000 && e.code < 4100) {
    if (e.code === 4001 && tokens++ < 1) { refresh(); return; }
    state("closed", "refused");
    problem(`The server ended the connection: ${e.reason || e.code}. Reload the page to try again.`);
    return;
  }
  const backOff = Math.min(8000, 300 * 2 ** attempts++) * (0.5 + Math.random() / 2);
  const wait = Math.max(backOff, pauseUntil - Date.now());
  pauseUntil = 0;
  state("waiting", `reconnecting in ${Math.ceil(wait / 1000)} s`);
  timer = setTimeout(refresh, wait);
}

// refresh asks for the address and the token again: a server that was started
// anew may have others.
async function refresh() {
  try {
    const answer = await fetch("/dev/config.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    const next = await answer.json();
    const moved = live && next.url !== live.url;
    live = next;
    if (moved) location.reload(); // the page may only talk to the address it was served with
    else connect();
  } catch {
    closed({ code: 1006 });
  }
}

function send(frame) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
}

function take(frame) {
  listen();
  switch (frame.type) {
    case "welcome":
      cursor = frame.cursor;
      maxIdle = frame.max_idle_ms || maxIdle;
      send({ type: "subscribe", pattern: wanted, ref: "first" });
      break;
    case "subscribed":
      attempts = tokens = 0;
      state("open", "live");
      problem("");
      if (frame.gap) gap(frame.gap);
      if (frame.ref === "change" && frame.pattern !== pattern) send({ type: "unsubscribe", pattern });
      pattern = frame.pattern;
      break;
    case "event":
      if (frame.id) {
        if (seen.has(frame.id)) break;
        seen.add(frame.id);
        if (seen.size > rememberedIds) seen.delete(seen.values().next().value);
        cursor = frame.id;
      }
      received++;
      arrivals.push(performance.now());
      delete frame.type;
      window.dispatchEvent(new CustomEvent("carillon:event", { detail: frame }));
      add(frame);
      break;
    case "caught_up":
    case "heartbeat":
      cursor = frame.cursor;
      break;
    case "gap":
      cursor = frame.cursor;
      gap(frame);
      break;
    case "goaway":
      pauseUntil = Date.now() + (frame.retry_after_ms || 0);
      state("open", "server is going away");
      break;
    case "error":
      problem(frame.message);
      if (frame.ref === "first" && wanted !== pattern) {
        wanted = pattern;
        send({ type: "subscribe", pattern, ref: "first" });
      } else if (frame.ref === "change") {
        wanted = pattern;
      }
      break;
  }
}

function gap(g) {
  add({ notice: g.reason === "expired"
    ? "Some events are missing here: they are older than what the log keeps."
    : "The log is not the one from before: what was above may be incomplete." });
}

// ---- The controls.

$("controls").addEventListener("submit", (e) => {
  e.preventDefault();
  problem("");
  wanted = $("pattern").value.trim() || ">";
  $("pattern").value = wanted;
  if (wanted === pattern) return;
  add({ notice: `Pattern is now ${wanted}` });
  send({ type: "subscribe", pattern: wanted, ref: "change" });
});

$("start").addEventListener("change", () => {
  empty();
  seen.clear();
  cursor = null;
  const old = socket;
  socket = null;
  old?.close(1000);
  connect();
});

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", paused);
  if (!paused) {
    $("pause").textContent = "Pause";
    // The list is full then: the notice takes the place of the oldest.
    if (missed > 0) waiting[0] = { notice: `${number.format(missed + 1)} more events came while the list stood still; they are not shown.` };
  }
  draw();
});

$("clear").addEventListener("click", empty);

function empty() {
  waiting.length = missed = 0;
  $("rows").replaceChildren();
  draw();
}

// ---- The figures.

function rate() {
  const since = performance.now() - 1000;
  let old = 0;
  while (old < arrivals.length && arrivals[old] < since) old++;
  arrivals.splice(0, old);
  $("rate").textContent = number.format(arrivals.length);
}

function ago(started) {
  let s = Math.max(0, Math.round((Date.now() - new Date(started)) / 1000));
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min` : `${s} s`;
}

function size(n) {
  for (const unit of ["B", "KiB", "MiB"]) {
    if (n < 1024) return `${unit === "B" ? n : n.toFixed(1)} ${unit}`;
    n /= 1024;
  }
  return `${n.toFixed(1)} GiB`;
}

async function figures() {
  try {
    const s = await (await fetch("/status.json", { cache: "no-store" })).json();
    $("connections").textContent = number.format(s.connections);
    $("published").textContent = number.format(s.published);
    $("about").textContent = `${s.version} · ${s.durability}`;
    if (live === null) node(s);
  } catch {
    $("connections").textContent = $("published").textContent = "–";
    if (live === null) {
      state("closed", "away");
      $("verdict").textContent = "The node does not answer";
      $("why").textContent = "";
    }
  }
}

function node(s) {
  state(s.ready ? "open" : "waiting", s.ready ? "ready" : "not ready");
  $("verdict").textContent = s.ready ? "The node is ready" : "The node is not ready";
  $("why").textContent = s.reason || "";
  const facts = {
    "Public port": s.public || "not open", "Up for": ago(s.started), "Connections": number.format(s.connections),
    "Events published": number.format(s.published), "Events sent": number.format(s.sent),
    "In memory": `${number.format(s.ring_entries)} events, ${size(s.ring_bytes)}`,
  };
  $("facts").replaceChildren(...Object.entries(facts).map(([name, value]) => {
    const div = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    div.append(dt, dd);
    return div;
  }));
}

async function start() {
  let answer = null;
  try { answer = await fetch("/dev/config.json", { cache: "no-store" }); } catch { /* it was stopped meanwhile */ }
  if (answer?.status === 404) {
    $("node").hidden = false;
    for (const id of ["rate", "received"]) $(id).parentElement.hidden = true;
    figures();
    setInterval(figures, 2000);
    return;
  }
  if (!answer?.ok) {
    setTimeout(start, 500);
    return;
  }
  live = await answer.json();
  $("live").hidden = false;
  $("who").hidden = false;
  $("who").textContent = `${live.org} as ${live.user}`;
  connect();
  figures();
  setInterval(figures, 2000);
  setInterval(rate, 250);
}

start();
