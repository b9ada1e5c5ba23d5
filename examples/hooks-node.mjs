// A node with a source for each provider, that can be killed and started again.
import { execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { openSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";

// until tries again until ok gives something.
export async function until(what, seconds, ok) {
  for (const end = performance.now() + seconds * 1000; ; ) {
    const got = await ok();
    if (got) return got;
    if (performance.now() > end) throw new Error(`${what} did not happen in ${seconds} s`);
    await new Promise((r) => setTimeout(r, 20));
  }
}

// freePort is one that nobody listens at: the node needs the same one after a restart.
async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  await new Promise((r) => server.close(r));
  return port;
}

// The settings are YAML, of which JSON is a part.
const settings = (listen, ops, data, origin, sources) => `
listen: ${listen}
ops: {listen: "${ops}"}
data: ${JSON.stringify(data)}
origins: ["${origin}"]
sse: {retry: 100ms}
orgs:
  - id: acme
    sources:
${Object.entries(sources).map(([name, s]) => `      - ${JSON.stringify({ name, ...s })}`).join("\n")}
issuers:
  - orgs: [acme]
    secret_env: CARILLON_JWT_SECRET
`;

export async function makeNode(work, origin, sources) {
  const listen = `127.0.0.1:${await freePort()}`, ops = `127.0.0.1:${await freePort()}`;
  const binary = join(work, "carillon"), config = join(work, "carillon.yaml"), pid = join(work, "node.pid");
  const env = { PATH: process.env.PATH, HOME: work, CARILLON_JWT_SECRET: randomBytes(48).toString("base64") };
  writeFileSync(config, settings(listen, ops, join(work, "data"), origin, sources), { mode: 0o600 });
  let child;

  async function start() {
    const log = openSync(join(work, "node.log"), "a");
    child = spawn(binary, ["serve", "--config", config], { env, stdio: ["ignore", log, log] });
    writeFileSync(pid, `${child.pid}`);
    await until("the start of the node", 30, async () => {
      if (child.exitCode !== null) throw new Error(`the node ended with ${child.exitCode}`);
      return fetch(`http://${ops}/readyz`).then((r) => r.ok, () => false);
    });
  }
  // end sends a signal, and gives the code or the signal that the node ended with:
  // SIGKILL if it took too long.
  async function end(signal) {
    if (!child || child.exitCode !== null || child.signalCode !== null) return undefined;
    const ended = once(child, "exit"), late = setTimeout(() => child.kill("SIGKILL"), 15_000);
    child.kill(signal);
    const [code, by] = await ended;
    clearTimeout(late);
    rmSync(pid, { force: true });
    return by ?? code;
  }
  // token is one for a user of the organization.
  async function token(user, role) {
    const { stdout } = await promisify(execFile)(binary, ["token", "--org", "acme", "--user", user, "--role", role], { env });
    return stdout.trim();
  }
  return { url: `http://${listen}`, start, end, token };
}
