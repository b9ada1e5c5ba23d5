// The providers: what each sends, and its own library to sign it and to verify it.
//
// A provider is {settings, library, sign, verify, deliveries}. sign(delivery, options)
// gives the headers of a delivery, for another body or as of another time if options
// says so; verify(body, headers) throws, or is false, if the provider's customers would
// refuse it; deliveries are what is sent: {id, event, body, payload}, where payload is
// what is to become of body, and id how the provider names the delivery.
import { sign as signGitHub, verify as verifyGitHub } from "@octokit/webhooks-methods";
import { verifySlackRequest } from "@slack/bolt/dist/receivers/verify-request.js";
import { Webhook as Standard } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as Svix } from "svix";
import { createHash, createHmac, randomBytes, randomUUID, timingSafeEqual } from "node:crypto";
import { createRequire } from "node:module";
import * as payloads from "./hooks-payloads.mjs";

const require = createRequire(import.meta.url);
const json = { "content-type": "application/json" };
const unix = (at) => Math.floor(at / 1000);

// What the server calls a delivery that has no id of its provider's.
const digest = (body) => "sha256-" + createHash("sha256").update(body).digest("hex").slice(0, 32);

function github() {
  const secret = randomBytes(32).toString("hex");
  const examples = ["api.github.com", "ghes-31", "ghes-32", "ghes-33", "ghes-34", "ghes-35"]
    .flatMap((of) => require(`@octokit/webhooks-examples/${of}/index.json`))
    .flatMap(({ name, examples }) => examples.map((payload) => ({ name, payload })));
  return {
    settings: { kind: "github", secrets: [secret] },
    library: "@octokit/webhooks-methods",
    sign: async ({ id, name, body: own }, { body = own } = {}) => ({
      ...json, "user-agent": "GitHub-Hookshot/044aadd", "x-github-event": name, "x-github-delivery": id,
      "x-hub-signature-256": await signGitHub(secret, body),
    }),
    verify: (body, headers) => verifyGitHub(secret, body, headers["x-hub-signature-256"]),
    deliveries: examples.map(({ name, payload }) => githubDelivery(name, payload)),
  };
}

export function githubDelivery(name, payload) {
  const event = payload.action ? `${name}.${payload.action}` : name;
  return { id: randomUUID(), name, event, body: JSON.stringify(payload), payload };
}

// Stripe's secret is being rolled: it signs with the old one, which the source does not
// have any more, and with the new one. There is a v0 too, which means nothing.
function stripe() {
  const secret = "whsec_" + randomBytes(24).toString("hex"), old = "whsec_" + randomBytes(24).toString("hex");
  const header = (payload, timestamp, secret, scheme = "v1") =>
    Stripe.webhooks.generateTestHeaderString({ payload, secret, timestamp, scheme });
  const signature = (header) => header.slice(header.indexOf(",") + 1);
  return {
    settings: { kind: "stripe", secrets: [secret], order_by: "data.object.id" },
    library: "stripe",
    sign: ({ body: own }, { body = own, at = Date.now() } = {}) => {
      const made = [old, secret].map((s) => header(body, unix(at), s));
      return { ...json, "stripe-signature": [made[0], signature(made[1]), signature(header(body, unix(at), secret, "v0"))].join(",") };
    },
    // What only the scheme of tests vouches for is not vouched for.
    decoy: ({ body }) => ({ ...json, "stripe-signature": header(body, unix(Date.now()), secret, "v0") }),
    verify: (body, headers) => Stripe.webhooks.signature.verifyHeader(body, headers["stripe-signature"], secret, 300),
    deliveries: payloads.stripe().map((payload) => ({ id: payload.id, event: payload.type, body: JSON.stringify(payload, null, 2), payload })),
  };
}

function slack() {
  const secret = randomBytes(16).toString("hex");
  return {
    settings: { kind: "slack", secrets: [secret] },
    library: "@slack/bolt, verifying only",
    // No library of Slack's signs. This is as its documentation says.
    sign: ({ form, body: own }, { body = own, at = Date.now() } = {}) => ({
      "content-type": form ? "application/x-www-form-urlencoded" : "application/json",
      "x-slack-request-timestamp": `${unix(at)}`,
      "x-slack-signature": "v0=" + createHmac("sha256", secret).update(`v0:${unix(at)}:${body}`).digest("hex"),
    }),
    verify: (body, headers) => verifySlackRequest({ signingSecret: secret, body: body.toString(), headers: Object.fromEntries(new Headers(headers)) }) ?? true,
    deliveries: [
      ...payloads.slackEvents().map((payload) => ({ id: payload.event_id, event: payload.event.type, body: JSON.stringify(payload), payload })),
      ...payloads.slackForms().map(({ fields, inner }) => {
        const body = new URLSearchParams(inner ? { payload: JSON.stringify(inner) } : fields).toString();
        return { id: digest(body), form: true, event: inner ? `interactive.${inner.type}` : "command", body, payload: inner ?? fields };
      }),
    ],
    challenge: payloads.slackChallenge(),
  };
}

// Standard Webhooks and Svix are one kind, with other names of headers.
function standard(library, Webhook, family) {
  const secret = "whsec_" + randomBytes(32).toString("base64");
  const webhook = new Webhook(secret);
  return {
    settings: { kind: "standard", secrets: [secret] },
    library,
    sign: ({ id, body: own }, { body = own, at = Date.now() } = {}) => ({
      ...json, [`${family}-id`]: id, [`${family}-timestamp`]: `${unix(at)}`, [`${family}-signature`]: webhook.sign(id, new Date(unix(at) * 1000), body),
    }),
    verify: (body, headers) => webhook.verify(body, headers),
    deliveries: payloads.standard().map((payload) => ({
      id: "msg_" + randomBytes(12).toString("hex"), event: payload.type, body: JSON.stringify(payload), payload,
    })),
  };
}

// Whoever has no library signs with HMAC, and the source says how.
function own() {
  const secret = randomBytes(24).toString("base64url");
  const mac = (at, body) => createHmac("sha256", secret).update(`${at}.${body}`).digest("hex");
  return {
    settings: {
      kind: "generic", secrets: [secret],
      generic: {
        header: "X-Shop-Signature", prefix: "sha256=", content: "{timestamp}.{body}", timestamp_header: "X-Shop-Timestamp",
        id_header: "X-Shop-Delivery", event_field: "topic",
      },
    },
    library: "HMAC",
    sign: ({ id, body: own }, { body = own, at = Date.now() } = {}) => ({
      ...json, "x-shop-delivery": id, "x-shop-timestamp": `${unix(at)}`, "x-shop-signature": "sha256=" + mac(unix(at), body),
    }),
    verify: (body, headers) => timingSafeEqual(
      Buffer.from(headers["x-shop-signature"]), Buffer.from("sha256=" + mac(headers["x-shop-timestamp"], body))),
    deliveries: payloads.shop().map((payload) => ({ id: randomUUID(), event: payload.topic, body: JSON.stringify(payload), payload })),
  };
}

// providers are all of them, by the names of their sources. Their secrets are new ones.
export function providers() {
  const all = {
    gh: github(), stripe: stripe(), slack: slack(), own: own(),
    std: standard("standardwebhooks", Standard, "webhook"), svix: standard("svix", Svix, "svix"),
  };
  for (const [source, p] of Object.entries(all)) {
    for (const d of p.deliveries) Object.assign(d, { source, type: `${source}.${d.event}` });
  }
  return all;
}
